// Holding this page's numbers against a server's: the digest of a fixed prompt, and digest records, made and checked.

import type { DigestRecord, Model } from 'twinfer';
import { byId, make } from './dom.js';

/** The prompt whose digest is compared: any text will do, as long as it is the same one. */
const FIXED_PROMPT = 'Once upon a time there was a little house at the edge of the forest.';

/** The panel "Compare with the server". */
export class Compare {
  #model: Model | null = null;
  #file = '';
  readonly #result = byId('compare-result');
  readonly #controls = [
    byId<HTMLButtonElement>('compare'),
    byId<HTMLButtonElement>('record'),
    byId<HTMLButtonElement>('check'),
  ] as const;
  readonly #chosen = byId<HTMLInputElement>('record-file');

  constructor() {
    const [compare, record, check] = this.#controls;
    compare.addEventListener('click', () => void this.#run((model) => this.#digest(model)));
    record.addEventListener('click', () => void this.#run((model) => this.#record(model)));
    check.addEventListener('click', () => this.#chosen.click());
    this.#chosen.addEventListener('change', () => {
      const file = this.#chosen.files?.[0];
      // The same file may be chosen again.
      this.#chosen.value = '';
      if (file) {
        void this.#run((model) => this.#check(model, file));
      }
    });
  }

  /** Another model; `file` is its file's name where it has one. */
  use(model: Model | null, file: string): void {
    this.#model = model;
    this.#file = file;
    this.#result.replaceChildren();
    this.#enable();
  }

  #enable(): void {
    for (const control of this.#controls) {
      control.disabled = this.#model === null;
    }
  }

  async #run(work: (model: Model) => Promise<HTMLElement[]>): Promise<void> {
    const model = this.#model;
    if (model === null) {
      return;
    }
    for (const control of this.#controls) {
      control.disabled = true;
    }
    let shown: HTMLElement[];
    try {
      shown = await work(model);
    } catch (error) {
      shown = [make('p', 'failure', String((error as Error).message))];
    }
    // What came of another model is of no use.
    if (model === this.#model) {
      this.#result.replaceChildren(...shown);
      this.#enable();
    }
  }

  #progress(text: string): { onProgress: (done: number, total: number) => void } {
    const bar = make('progress');
    bar.setAttribute('aria-label', text);
    this.#result.replaceChildren(make('p', '', text), bar);
    return {
      onProgress: (done, total) => {
        bar.max = total;
        bar.value = done;
      },
    };
  }

  async #digest(model: Model): Promise<HTMLElement[]> {
    const tokens = await model.tokenize(FIXED_PROMPT);
    const digest = await model.digest(tokens);
    return [
      make('p', '', `Prompt: “${FIXED_PROMPT}”, ${tokens.length} tokens.`),
      make('code', 'digest', digest),
      make('p', '', 'On the server:'),
      make('code', 'digest', `twinfer eval${this.#option()} --tokens ${tokens.join(',')}`),
    ];
  }

  async #record(model: Model): Promise<HTMLElement[]> {
    const record = await model.record(this.#progress('Computing the record'));
    const name = `${this.#file.replace(/\.gguf$/, '') || 'built-in'}.record.json`;
    const link = make('a', 'button', `Save ${name}`);
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(record, null, 2)}\n`], { type: 'application/json' }));
    link.download = name;
    return [
      make('p', '', 'Digest of all logits of the record:'),
      make('code', 'digest', record.digest),
      link,
      make('p', '', 'On the server:'),
      make('code', 'digest', `twinfer verify${this.#option()} --against ${name}`),
    ];
  }

  async #check(model: Model, file: File): Promise<HTMLElement[]> {
    let record: DigestRecord;
    try {
      record = JSON.parse(await file.text()) as DigestRecord;
    } catch {
      throw new Error(`${file.name} is not a digest record: it is no JSON`);
    }
    const { equal, difference, digest } = await model.verify(record, this.#progress(`Checking ${file.name}`));
    return [
      make(
        'p',
        equal ? 'success' : 'failure',
        equal ? `Equal: all logits, and the text sampled from them, are those of ${file.name}.` : `${file.name}: ${difference}.`,
      ),
      make('code', 'digest', digest),
    ];
  }

  #option(): string {
    return this.#file ? ` -m ${this.#file}` : '';
  }
}
