// The data inside a page, by the id of its script element; gzip in base64 where it is large.
"use strict";

async function benchData(id) {
  const element = document.getElementById(id);
  if (!("gzip" in element.dataset)) return JSON.parse(element.textContent);
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(plain).text());
}

// An element with properties, data and children; text is never read as HTML.
function benchElement(tag, properties = {}, ...children) {
  const { dataset = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}
