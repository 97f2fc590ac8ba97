// A line of measurements, drawn as SVG: it scales with the page, follows its colours, and says its content in words.

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 320;
const HEIGHT = 96;
const LEFT = 38;
const MOST = 160;

export class Chart {
  readonly #svg: SVGSVGElement;
  readonly #line: SVGPolylineElement;
  readonly #top: SVGTextElement;
  #values: number[] = [];

  constructor(
    parent: HTMLElement,
    private readonly what: string,
  ) {
    this.#svg = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', class: 'chart' });
    const base = HEIGHT - 8;
    this.#svg.append(
      svg('line', { x1: LEFT, y1: 12, x2: WIDTH, y2: 12, class: 'grid' }),
      svg('line', { x1: LEFT, y1: base, x2: WIDTH, y2: base, class: 'axis' }),
    );
    this.#top = svg('text', { x: LEFT - 6, y: 16, 'text-anchor': 'end' });
    const zero = svg('text', { x: LEFT - 6, y: base + 4, 'text-anchor': 'end' });
    zero.textContent = '0';
    this.#line = svg('polyline', { class: 'line' });
    this.#svg.append(this.#top, zero, this.#line);
    parent.append(this.#svg);
    this.#draw();
  }

  add(value: number): void {
    this.#values.push(value);
    if (this.#values.length > MOST) {
      this.#values.shift();
    }
    this.#draw();
  }

  clear(): void {
    this.#values = [];
    this.#draw();
  }

  #draw(): void {
    const values = this.#values;
    const top = niceAbove(Math.max(...values, 0));
    const spacing = (WIDTH - LEFT - 4) / Math.max(MOST / 4, values.length - 1);
    const y = (value: number) => HEIGHT - 8 - (value / top) * (HEIGHT - 20);
    const points = values.map((value, i) => `${(LEFT + i * spacing).toFixed(1)},${y(value).toFixed(1)}`);
    this.#line.setAttribute('points', points.join(' '));
    this.#top.textContent = values.length > 0 ? String(top) : '';
    const last = values.at(-1);
    this.#svg.setAttribute(
      'aria-label',
      last === undefined ? `${this.what}: nothing yet` : `${this.what}: now ${last.toFixed(1)}, at most ${Math.max(...values).toFixed(1)}`,
    );
  }
}

/** The next of 1, 2, 5, 10, 20, … that is not below. */
function niceAbove(value: number): number {
  if (value <= 0) {
    return 1;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((factor) => factor * power >= value) ?? 10) * power;
}

function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Record<string, string | number>): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, String(value));
  }
  return element;
}
