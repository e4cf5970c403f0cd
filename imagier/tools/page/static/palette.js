// The classes to paint with, by color and name.

import { make } from "./dom.js";

const MANY = 16; // more than this, and one can search

export class Palette {
  /** onChoose(channel): after a class was chosen. */
  constructor(element, onChoose) {
    this.element = element;
    this.onChoose = onChoose;
  }

  /** Shows classes ({channel, name, color}); hides itself if there are none. */
  show(classes, chosen) {
    this.element.hidden = classes.length === 0;
    this.radios = classes.map(({ channel }) => this.makeRadio(channel, channel === chosen));
    this.labels = classes.map(({ name, color }, index) => {
      const swatch = make("i", { className: "swatch", "aria-hidden": "true" });
      swatch.style.background = `rgb(${color.join(" ")})`;
      return make("label", { title: name }, this.radios[index], swatch, make("span", { textContent: name }));
    });
    const list = make("div", { className: "classes" }, ...this.labels);
    const legend = make("legend", { textContent: "Paint with" });
    this.element.replaceChildren(legend, ...(classes.length > MANY ? [this.makeSearch(classes)] : []), list);
  }

  /** Chooses the class at an index, as a click does. */
  choose(index) {
    this.radios[index].checked = true;
    this.labels[index].scrollIntoView({ block: "nearest" });
    this.radios[index].dispatchEvent(new Event("change"));
  }

  makeRadio(channel, checked) {
    return make("input", { type: "radio", name: "class", checked, onchange: () => this.onChoose(channel) });
  }

  makeSearch(classes) {
    const search = make("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class" });
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      classes.forEach(({ name }, index) => (this.labels[index].hidden = !name.toLowerCase().includes(wanted)));
    });
    return search;
  }
}
