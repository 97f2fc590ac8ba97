// twinfer and wllama in the same Chromium, in turn, on the same model: `cargo peers --browser` starts it.
//
//   node compare.mjs --model FILE --threads 2 --rounds 3 --chromium FILE
//                    --wllama DIR, --twinfer DIR (the packages)
//
// playwright-core is the project's own, from its node_modules. Prints one JSON object; progress goes to stderr. Each
// measurement has a browser of its own.

import { createReadStream, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string' },
    threads: { type: 'string' },
    rounds: { type: 'string' },
    wllama: { type: 'string' },
    twinfer: { type: 'string' },
    chromium: { type: 'string' },
  },
});
/** Tokens of the prompt, and tokens written. */
const PROMPT = 128;
const DECODE = 32;
const ENGINES = ['twinfer', 'wllama'];

const number = (name) => {
  const value = Number(args[name]);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} wants a number above 0`);
  return value;
};

const here = dirname(fileURLToPath(import.meta.url));
const roots = {
  '/page/': here,
  '/twinfer/': args.twinfer,
  '/wllama/': join(args.wllama, 'esm'),
};
const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };

/** When the last byte of the model was last handed to the system, as `Date.now()`. */
let sentAt = 0;

/** Serves the pages, the packages and the model, cross-origin isolated: threads need it. */
const server = createServer((request, response) => {
  const path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
  const prefix = Object.keys(roots).find((prefix) => path.startsWith(prefix));
  const file = path === '/model.gguf' ? args.model : prefix && join(roots[prefix], normalize(`/${path.slice(prefix.length)}`));
  let size;
  try {
    size = statSync(file).size;
  } catch {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    'content-type': types[extname(file)] ?? 'application/octet-stream',
    'content-length': size,
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-embedder-policy': 'require-corp',
  });
  if (path === '/model.gguf') response.on('finish', () => (sentAt = Date.now()));
  if (request.method === 'HEAD') response.end();
  else createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const origin = `http://localhost:${server.address().port}`;

/** Calls a function of the page in a browser of its own. */
async function inPage(name, options) {
  const browser = await chromium.launch({
    executablePath: args.chromium,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  try {
    const page = await browser.newPage();
    await page.goto(`${origin}/page/page.html`);
    await page.waitForFunction(() => 'measuring' in window);
    const result = await page.evaluate(([name, options]) => window.measuring[name](options), [name, options]);
    return { result, browser: browser.version() };
  } finally {
    await browser.close();
  }
}

const version = async (directory) => {
  try {
    return JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')).version;
  } catch {
    return 'unknown';
  }
};

const model = '/model.gguf';
const { result: prompt } = await inPage('promptOf', { model, tokens: PROMPT });
const samples = [];
const report = { wllama: await version(args.wllama), threads: number('threads'), samples };
for (let round = 0; round < number('rounds'); round++) {
  for (const engine of round % 2 ? [...ENGINES].reverse() : ENGINES) {
    const options = { model, threads: report.threads, prompt, decode: DECODE, contextLength: PROMPT + DECODE + 64 };
    const { result, browser } = await inPage(engine, options);
    report.browser = `Chromium ${browser}`;
    const sample = {
      ...result,
      build: result.engine,
      engine,
      round,
      // From the last byte that the server sent.
      firstTokenMs: result.firstTokenAt - sentAt,
      prefill: (result.promptTokens / result.promptMs) * 1000,
      decode: (result.tokens / result.decodeMs) * 1000,
    };
    samples.push(sample);
    console.error(
      `[round ${round + 1}] ${engine}: prefill ${sample.prefill.toFixed(2)} tok/s (${result.promptTokens} tokens), ` +
        `decode ${sample.decode.toFixed(2)} tok/s (${result.tokens} tokens), loaded in ${(result.loadMs / 1000).toFixed(1)} s, first token ${sample.firstTokenMs} ms after the last byte`,
    );
  }
}
server.close();
server.closeAllConnections();
console.log(JSON.stringify(report));
