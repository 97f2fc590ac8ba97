// The settings form: what it says, kept in this browser from visit to visit.

import type { GenerateOptions, LoadOptions } from 'twinfer';
import { byId } from './dom.js';

const KEY = 'twinfer-settings';

export class Settings {
  readonly #form = byId<HTMLFormElement>('settings-form');

  constructor() {
    this.#restore();
    this.#form.addEventListener('input', () => this.#keep());
    this.#form.addEventListener('submit', (event) => event.preventDefault());
  }

  get system(): string {
    return this.#text('system').trim();
  }

  load(): Pick<LoadOptions, 'threads' | 'contextLength'> {
    return { ...this.#number('threads'), ...this.#number('contextLength') };
  }

  generate(): GenerateOptions {
    return {
      ...this.#number('temp'),
      ...this.#number('top_k'),
      ...this.#number('top_p'),
      ...this.#number('min_p'),
      ...this.#number('penalty_repeat'),
      ...this.#number('maxTokens'),
      ...this.#number('seed'),
    };
  }

  #text(name: string): string {
    return String(new FormData(this.#form).get(name) ?? '');
  }

  #number<N extends string>(name: N): { [K in N]?: number } {
    const text = this.#text(name);
    const number = Number(text);
    return (text === '' || !Number.isFinite(number) ? {} : { [name]: number }) as { [K in N]?: number };
  }

  #keep(): void {
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(new FormData(this.#form))));
    } catch {
      // A browser that keeps nothing: the settings hold for this visit.
    }
  }

  #restore(): void {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Record<string, unknown>;
      for (const [name, value] of Object.entries(kept)) {
        const field = this.#form.elements.namedItem(name);
        if ((field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement) && typeof value === 'string') {
          field.value = value;
        }
      }
    } catch {
      // As above.
    }
  }
}
