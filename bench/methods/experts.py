"""Mixture of experts: many feed-forwards, a few of which process each token.

`GroupedExperts` is the arithmetic: tokens sorted by expert, one grouped matrix product per projection,
no token dropped. `TokenChoice` and `ExpertChoice` are two ways of pairing tokens with experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.schema import ExpertsConfig, ModelConfig
from bench.methods.permute import combine, dispatch
from bench.methods.routers import follow_rows, lowest_chosen, router_product
from bench.model.block import Branch, FeedForward, StepCost, Visit, feed_forward_width
from bench.model.context import Routing, TokenContext
from bench.model.kernels import RMSNorm, swiglu


def expert_width(model: ModelConfig, experts: ExpertsConfig) -> int:
    """Hidden width that keeps active FLOPs equal to the dense feed-forward's, to a multiple of 8.

    (top_k + n_shared) * width = d_ff. Grouped matrix products want strides of whole 16 bytes.
    """
    if experts.hidden is not None:
        return experts.hidden
    return max(8, 8 * round(feed_forward_width(model) / (8 * (experts.top_k + experts.n_shared))))


class GroupedExperts(nn.Module):
    """E SwiGLU feed-forwards on tokens that are sorted by expert."""

    def __init__(self, n_experts: int, d_model: int, hidden: int):
        super().__init__()
        # (out, in) like nn.Linear: on a CPU the weight gradient of gate_up is a fifth faster this way round
        self.gate_up = nn.Parameter(torch.empty(n_experts, 2 * hidden, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, hidden))

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        """rows (M, D), ends (E,) int32: expert e takes rows[ends[e-1]:ends[e]] -> (M, D)."""
        dtype = rows.dtype  # grouped_mm ignores autocast, so the cast is done here
        if torch.is_autocast_enabled(rows.device.type):
            dtype = torch.get_autocast_dtype(rows.device.type)
        hidden = swiglu(F.grouped_mm(rows.to(dtype), self.gate_up.to(dtype).transpose(1, 2), offs=ends))
        return F.grouped_mm(hidden, self.down.to(dtype).transpose(1, 2), offs=ends)

    @property
    def flops_per_row(self) -> float:
        """2 x the weights of one expert."""
        return 2.0 * (self.gate_up[0].numel() + self.down[0].numel())


class Experts(Branch):
    """A residual branch: pre-norm, router, routed experts, optional shared experts.

    Subclasses pair tokens with experts in `forward`; `visits` is the number of pairs planned for a row.
    """

    layer: int

    def __init__(self, model: ModelConfig, config: ExpertsConfig, layer: int):
        super().__init__()
        hidden = expert_width(model, config)
        self.config = config
        self.layer = layer
        self.n_choices = config.n_experts + config.n_noop
        self.norm = RMSNorm(model.d_model, eps=model.norm_eps)
        self.router = nn.Linear(model.d_model, self.n_choices, bias=False)
        self.experts = GroupedExperts(config.n_experts, model.d_model, hidden)
        self.shared = FeedForward(model, hidden * config.n_shared) if config.n_shared else None

    def router_logits(self, normed: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, E + null experts), in float32."""
        return router_product(normed, self.router.weight)

    @property
    def visits_per_token(self) -> float:
        """Expected experts of a token under a balanced load; null experts do not count."""
        return self.config.top_k * self.config.n_experts / self.n_choices

    def visits(self, tokens: float) -> float:
        """Expert rows planned for a row of `tokens` tokens."""
        raise NotImplementedError

    def flops(self, tokens: float) -> dict[str, float]:
        return self._flops(tokens, self.visits(tokens))

    def _flops(self, tokens: float, visits: float) -> dict[str, float]:
        """Forward FLOPs of `tokens` tokens on `visits` expert rows; a null expert costs its logit only."""
        parts = {
            "router": 2.0 * self.router.weight.numel() * tokens,
            "experts": self.experts.flops_per_row * visits,
        }
        if self.shared is not None:
            parts["experts"] += sum(self.shared.flops(tokens).values())
        return parts

    def step_cost(self, visit: Visit) -> StepCost:
        """An expert's weights are read if any row picks it."""
        own = sum(p.numel() for p in self.experts.parameters())
        others = sum(p.numel() for p in self.parameters()) - own
        picked = self.visits_per_token / self.config.n_experts
        weights = visit.touched() * others + visit.touched(picked) * own
        return StepCost(weights, flops=visit.coming * sum(self._flops(1.0, self.visits_per_token).values()))

    def moved_bytes(self, tokens: float) -> float:
        """Probabilities ranked and choices sorted; visited rows gathered (read, written) and summed (read, written)."""
        ranked = 4.0 * self.n_choices * tokens + 16.0 * self.config.top_k * tokens
        return ranked + 4.0 * (3.0 * self.visits(tokens) + tokens) * self.norm.weight.numel()

    def active_params(self) -> float:
        total = sum(parameter.numel() for parameter in self.parameters())
        routed = sum(parameter.numel() for parameter in self.experts.parameters())
        return total - routed * (1.0 - self.visits_per_token / self.config.n_experts)


class TokenChoice(Experts):
    """Each token picks its top_k experts; dropless (MegaBlocks, arXiv 2211.15841).

    Gates are the softmax over experts, renormalised over the chosen if there are several
    (Mixtral, arXiv 2401.04088). A token that picks a null expert skips that much of the layer.

    Losses are means over rows, and so the same for any micro-batches. The balance loss is Switch Transformer's (arXiv
    2101.03961, eq. 4) of each row by itself, as in DeepSeek-V3 (arXiv 2412.19437, eq. 17 to 20): 1 when balanced.
    """

    bias: Tensor

    def __init__(self, model: ModelConfig, config: ExpertsConfig, layer: int):
        super().__init__(model, config, layer)
        self.register_buffer("bias", torch.zeros(self.n_choices))

    def visits(self, tokens: float) -> float:
        return tokens * self.visits_per_token

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        """x (B, T, D) -> what the experts add to it (B, T, D)."""
        normed = self.norm(x)
        logits = self.router_logits(normed)
        probabilities = logits.softmax(dim=-1)
        choice = (probabilities.detach() + self.bias).topk(self.config.top_k, dim=-1).indices
        gates = probabilities.gather(-1, choice)
        if self.config.top_k > 1:
            gates = gates / gates.sum(dim=-1, keepdim=True)
        if context.valid is not None:  # padding visits no expert: numbered past the last one
            choice = choice.masked_fill(~context.valid.unsqueeze(-1), self.n_choices)
        counts = _counts(choice, self.n_choices)
        added = self._run(normed, choice, gates, counts.sum(dim=0)[: self.config.n_experts], context)
        if context.arrivals is None:  # decoding keeps no reports
            routing = self._report(logits, probabilities, counts, context)
            routing.experts = choice
            context.routings.append(routing)
        return added if self.shared is None else added + self.shared(x, context)

    def _run(self, normed: Tensor, choice: Tensor, gates: Tensor, counts: Tensor, context: TokenContext) -> Tensor:
        order = choice.flatten().argsort(stable=True)
        if self.config.n_noop or context.valid is not None:
            visited = int(counts.sum())
            if visited == 0:
                return torch.zeros_like(normed)
        else:
            visited = order.numel()
        rows = dispatch(normed.flatten(0, 1), order, visited, self.config.top_k)
        out = self.experts(rows, counts.cumsum(0).to(torch.int32))
        return combine(out, order, gates.flatten(0, 1)).view_as(normed)

    def _report(self, logits: Tensor, probabilities: Tensor, counts: Tensor, context: TokenContext) -> Routing:
        all_rows = counts.sum(dim=0)
        routing = Routing(self.layer, expert_counts=all_rows)
        load = all_rows.float()
        total = load.sum().clamp(min=1)
        real = load[: self.config.n_experts]
        routing.metrics["expert_load_cv"] = real.std(correction=0) / real.mean().clamp(min=1e-9)
        if self.config.n_noop:
            executed = real.sum().double()
            planned = self.visits(float(total) / self.config.top_k)
            routing.metrics["noop_fraction"] = 1.0 - real.sum() / total
            routing.executed_flops = (executed - planned) * self.experts.flops_per_row
        if logits.requires_grad:
            share = counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
            balance = self.n_choices * (share * _mean_tokens(probabilities, context.valid)).sum(dim=-1).mean()
            z = _mean_tokens(logits.logsumexp(dim=-1, keepdim=True) ** 2, context.valid).mean()
            routing.metrics["balance_loss"], routing.metrics["z_loss"] = balance.detach(), z.detach()
            if self.config.balance == "loss":
                routing.losses["balance"] = self.config.balance_loss * balance
            routing.losses["z"] = self.config.z_loss * z  # ST-MoE, arXiv 2202.08906, eq. 5
        return routing

    def after_step(self, routings: list[Routing]) -> None:
        """Loss-free balancing moves its biases once per step, by the load of the whole step."""
        if self.config.balance == "bias":
            counts = [r.expert_counts for r in routings if r.expert_counts is not None]
            self.adjust_bias(torch.stack(counts).sum(dim=0))

    @torch.no_grad()
    def adjust_bias(self, counts: Tensor) -> None:
        """Loss-free balancing (arXiv 2408.15664): move each choice's bias against its load."""
        self.bias += self.config.balance_bias_step * (counts.float().mean() - counts.float()).sign()


class ExpertChoice(Experts):
    """Each expert picks its tokens in each row (Zhou et al. 2022, arXiv 2202.09368).

    Picking among a row's tokens looks at the future, so only training does it. In causal evaluation a token visits
    each expert whose threshold its probability exceeds: a running mean of the lowest probability that the expert
    picked (expert-threshold routing, arXiv 2603.11535). It moves once per step, by all rows of the step.
    """

    looks_ahead = True
    threshold: Tensor
    updates: Tensor

    def __init__(self, model: ModelConfig, config: ExpertsConfig, layer: int):
        super().__init__(model, config, layer)
        self.register_buffer("threshold", torch.zeros(config.n_experts))
        self.register_buffer("updates", torch.zeros(()))

    def quota(self, tokens: float) -> int:
        """Tokens of a row of `tokens` that each expert picks, so that a token has top_k on average; at least 1."""
        return max(1, round(int(tokens) * self.config.top_k / self.config.n_experts))

    def visits(self, tokens: float) -> float:
        return self.quota(tokens) * self.config.n_experts

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        """x (B, T, D) -> what the experts add to it (B, T, D)."""
        normed = self.norm(x)
        flat = normed.flatten(0, 1)
        probabilities = self.router_logits(normed).softmax(dim=-1)
        chosen = self._choose(probabilities.detach(), context)
        expert, token = chosen.flatten(0, 1).t().nonzero(as_tuple=True)
        counts = chosen.sum(dim=(0, 1))
        if context.arrivals is None:
            routing = self._report(counts, x.shape, context)
            if self.training and not context.causal:
                routing.lowest = lowest_chosen(probabilities.detach(), chosen)
            context.routings.append(routing)
        if token.numel() == 0:
            added = torch.zeros_like(x)
        else:
            out = self.experts(flat.index_select(0, token), counts.cumsum(0).to(torch.int32))
            gates = probabilities.flatten(0, 1)[token, expert].unsqueeze(-1).to(out.dtype)
            added = torch.zeros_like(flat).index_add(0, token, (out * gates).to(flat.dtype)).view_as(x)
        return added if self.shared is None else added + self.shared(x, context)

    def _choose(self, probabilities: Tensor, context: TokenContext) -> Tensor:
        """probabilities (B, T, E) -> (B, T, E) bool."""
        if context.causal:
            chosen = probabilities > self.threshold
            return chosen if context.valid is None else chosen & context.valid.unsqueeze(-1)
        if context.valid is not None:
            return self._choose_real(probabilities, context.valid)
        picked = probabilities.topk(self.quota(probabilities.shape[1]), dim=1).indices
        return torch.zeros_like(probabilities).scatter_(1, picked, 1.0) > 0

    def _choose_real(self, probabilities: Tensor, valid: Tensor) -> Tensor:
        """Each row's quota follows its real tokens (B, T), and padding uses none of it."""
        quota = [self.quota(count) for count in valid.sum(dim=1).tolist()]
        ranked = probabilities.masked_fill(~valid.unsqueeze(-1), -1.0).argsort(dim=1, descending=True, stable=True)
        rank = ranked.argsort(dim=1)
        return (rank < torch.tensor(quota, device=rank.device).view(-1, 1, 1)) & valid.unsqueeze(-1)

    def _report(self, counts: Tensor, shape: torch.Size, context: TokenContext) -> Routing:
        load = counts.float()
        routing = Routing(self.layer, expert_counts=counts)
        routing.metrics["expert_load_cv"] = load.std(correction=0) / load.mean().clamp(min=1e-9)
        if context.causal or context.valid is not None:
            planned = shape[0] * self.visits(shape[1])
            routing.executed_flops = (counts.sum().double() - planned) * self.experts.flops_per_row
        return routing

    def after_step(self, routings: list[Routing]) -> None:
        """The thresholds follow all rows of the step."""
        lowest = [r.lowest for r in routings if r.expert_counts is not None and r.lowest is not None]
        follow_rows(self.threshold, self.updates, torch.cat(lowest))


def _counts(choice: Tensor, n: int) -> Tensor:
    """How often each row chose each of n: choice (B, T, k), n where it has none -> (B, n) int64.

    Unlike bincount's, the shape does not depend on data, so an expert layer compiles to one graph.
    """
    choice = choice.flatten(1)
    return choice.new_zeros(len(choice), n + 1).scatter_add_(1, choice, torch.ones_like(choice))[:, :n]


def _mean_tokens(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (B, T, C) over each row's real tokens -> (B, C)."""
    if valid is None:
        return values.mean(dim=1)
    mask = valid.unsqueeze(-1)
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


EXPERTS = {"token_choice": TokenChoice, "expert_choice": ExpertChoice}
