// What a reader sees of a page: its overflow, the answer's place, the size and the overlaps of the figures' text.
() => {
  const seen = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const texts = (figure) => [...figure.querySelectorAll("text")].filter((text) => seen(text) && text.textContent.trim());
  const figures = [...document.querySelectorAll("svg")].filter((svg) => seen(svg) && !svg.parentElement.closest("svg"));

  // Pixels of a text's font on the screen: its own size times the scale of all transforms around it.
  const size = (text) => {
    const { a, b, c, d } = text.getScreenCTM();
    return parseFloat(getComputedStyle(text).fontSize) * Math.sqrt(Math.abs(a * d - b * c));
  };

  // Whether the letters of two texts touch. A line's box is taller than its letters by about a fifth at each side.
  const upright = (text) => { const { a, b } = text.getScreenCTM(); return Math.abs(a * b) < 1e-6; };
  const letters = (text) => {
    const { left, right, top, bottom } = text.getBoundingClientRect();
    const margin = 0.2 * Math.min(bottom - top, right - left);
    const wide = right - left > bottom - top;
    return wide ? [left, right, top + margin, bottom - margin] : [left + margin, right - margin, top, bottom];
  };
  const touch = ([left, right, top, bottom], [from, to, above, below]) =>
    Math.min(right, to) - Math.max(left, from) > 1 && Math.min(bottom, below) - Math.max(top, above) > 1;
  const overlaps = (figure) => {
    const boxes = texts(figure).filter(upright).map((text) => [text.textContent.trim(), letters(text)]);
    return boxes.flatMap(([words, box], place) =>
      boxes.slice(place + 1).filter(([others, other]) => words !== others && touch(box, other))
        .map(([others]) => `${words} / ${others}`));
  };

  // Words that are seen before anything is unfolded.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let words = 0;
  while (walker.nextNode()) {
    const { parentElement, textContent } = walker.currentNode;
    if (parentElement.checkVisibility()) words += textContent.split(/\s+/).filter(Boolean).length;
  }

  const hero = [...document.querySelectorAll("main .hero svg")].find(seen)?.getBoundingClientRect();
  const answer = [...document.querySelectorAll("main table.answer, main figure svg, main figure canvas")].find(seen);
  const { top, height } = answer?.getBoundingClientRect() ?? { top: Infinity, height: 0 };
  return {
    words,
    hero: hero && { bottom: hero.bottom, width: hero.width },
    overflow: document.documentElement.scrollWidth - innerWidth,
    small: figures.flatMap(texts).filter((text) => size(text) < 10.95).map((text) => `${text.textContent.trim()}: ${size(text).toFixed(1)} px`),
    overlaps: figures.flatMap(overlaps),
    answer: { shown: Math.min(height, innerHeight - top), height },
    links: [...document.querySelectorAll("a[href]")].map((link) => link.href.split("#")[0]),
    anchors: [...document.querySelectorAll("a[href^='#']")].map((link) => link.hash.slice(1)).filter((id) => !document.getElementById(id)),
  };
}
