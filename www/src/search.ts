// Search in a text of one's own, with a model that makes vectors: paragraphs by their nearness in meaning to a question.

import { TwinferError, type Model } from 'twinfer';
import { byId, make } from './dom.js';

/** Paragraphs that are given to the model at a time: between two portions the page shows how far it is. */
const PORTION = 16;

/** Answers that are shown. */
const SHOWN = 5;

interface Passage {
  text: string;
  vector: Float32Array;
}

export class Search {
  readonly #card = byId('search');
  readonly #form = byId<HTMLFormElement>('search-form');
  readonly #text = byId<HTMLTextAreaElement>('search-text');
  readonly #question = byId<HTMLInputElement>('search-question');
  readonly #ask = byId<HTMLButtonElement>('search-ask');
  readonly #facts = byId('search-facts');
  readonly #results = byId('search-results');
  #model: Model | null = null;
  /** Of the text as it was when they were made. */
  #passages: Passage[] = [];
  #of = '';

  constructor() {
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#search();
    });
  }

  /** The model that makes vectors from now on; without one that is made for it the search is not shown. */
  set model(model: Model | null) {
    const pooling = model?.info.pooling ?? null;
    this.#model = pooling === null || pooling === 'rank' ? null : model;
    this.#card.hidden = this.#model === null;
    this.#passages = [];
    this.#of = '';
    this.#results.replaceChildren();
    this.#facts.textContent = '';
  }

  async #search(): Promise<void> {
    const [model, text, question] = [this.#model, this.#text.value, this.#question.value.trim()];
    if (model === null || question === '') {
      return;
    }
    this.#ask.disabled = true;
    try {
      const begun = performance.now();
      const read = text !== this.#of;
      if (read) {
        await this.#read(model, text);
      }
      const [asked] = await model.embed([question], { normalize: true });
      if (model === this.#model && asked !== undefined) {
        this.#show(asked, performance.now() - begun, read);
      }
    } catch (error) {
      const known = error instanceof TwinferError ? error.message : String((error as Error).message);
      this.#facts.textContent = `Failed: ${known}`;
    }
    this.#ask.disabled = false;
  }

  /** Makes the vectors of a text's paragraphs. */
  async #read(model: Model, text: string): Promise<void> {
    const paragraphs = text
      .split(/\n\s*\n/)
      .map((paragraph) => paragraph.trim())
      .filter((paragraph) => paragraph !== '');
    const passages: Passage[] = [];
    for (let first = 0; first < paragraphs.length; first += PORTION) {
      this.#facts.textContent = `Reading: ${first} of ${paragraphs.length} paragraphs`;
      const portion = paragraphs.slice(first, first + PORTION);
      const vectors = await model.embed(portion, { normalize: true });
      portion.forEach((paragraph, i) => passages.push({ text: paragraph, vector: vectors[i] ?? new Float32Array() }));
    }
    this.#passages = passages;
    this.#of = text;
  }

  #show(asked: Float32Array, ms: number, read: boolean): void {
    const found = this.#passages
      .map((passage) => ({ passage, nearness: passage.vector.reduce((sum, value, i) => sum + value * (asked[i] ?? 0), 0) }))
      .sort((a, b) => b.nearness - a.nearness)
      .slice(0, SHOWN);
    this.#results.replaceChildren(
      ...found.map(({ passage, nearness }) => {
        const item = make('li');
        item.append(make('small', 'facts', nearness.toFixed(3)), make('p', 'text', passage.text));
        return item;
      }),
    );
    const what = read ? `${this.#passages.length} paragraphs read and searched` : `${this.#passages.length} paragraphs searched`;
    this.#facts.textContent = this.#passages.length === 0 ? 'There is no text to search.' : `${what} in ${Math.round(ms)} ms`;
  }
}
