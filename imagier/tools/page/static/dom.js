// Small helpers for elements.

/** The element of an id, which is there. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties and children; names with a hyphen are attributes, those with `on` listeners. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Lets a canvas show RGBA bytes at their own size, and its style know their shape. */
export function showPixels(canvas, rgba, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.style.setProperty("--ratio", width / height);
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
}

/** Puts its icon before the text of every element with `data-icon`. */
export function addIcons() {
  for (const element of document.querySelectorAll("[data-icon]")) element.prepend(makeIcon(element.dataset.icon));
}

function makeIcon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `icons.svg#${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Calls `onFile` with an image file that is chosen by a button, or dropped on an element. */
export function acceptFiles({ button, dropZone, onFile }) {
  const chooser = make("input", { type: "file", accept: "image/*", hidden: true });
  button.after(chooser);
  button.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    if (chooser.files[0]) onFile(chooser.files[0]);
    chooser.value = "";
  });
  dropZone.addEventListener("dragover", (event) => {
    event.preventDefault();
    dropZone.classList.add("over");
  });
  dropZone.addEventListener("dragleave", () => dropZone.classList.remove("over"));
  dropZone.addEventListener("drop", (event) => {
    event.preventDefault();
    dropZone.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) onFile(file);
  });
}

/** Calls `onFile` with an image that is pasted into the page. */
export function acceptPaste(onFile) {
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) onFile(file);
  });
}

/** Whether a key belongs to a field that is being typed into, and is no shortcut. */
export function isTyping(event) {
  return event.target.matches("input[type=search], input[type=text], textarea");
}
