// A file of over 3 GB in one piece: offsets and addresses past 2 GiB are unsigned on every way. It takes minutes, so it
// runs only where TWINFER_LARGE is set.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { harness, open, root, twinfer, type World } from './support/browser.ts';
import { writeLargeModel } from './support/large.ts';

describe('a file over 2 GiB', { skip: process.env.TWINFER_LARGE ? false : 'TWINFER_LARGE is not set' }, () => {
  let world: World;
  before(async () => {
    world = await open();
  });
  after(async () => {
    await world.close();
  });

  test('loads in one piece and gives the native digest', { timeout: 900_000 }, async () => {
    const path = join(root, 'target/web-tests/large.gguf');
    const length = writeLargeModel(path, 25);
    assert.ok(length > 3.1e9, String(length));
    const tokens = [1, 15_999];
    const out = execFileSync(twinfer, ['eval', '-m', path, '--tokens', tokens.join(','), '--json', '-q', '-c', '128'], { maxBuffer: 1 << 26 });
    const expected = (JSON.parse(out.toString()) as { sha256: string }).sha256;
    const page = await harness(await world.browser.newContext(), world.isolated);
    page.setDefaultTimeout(900_000);
    const found = await page.evaluate(
      async ([url, tokens]) => {
        const begun = performance.now();
        const model = await (window as any).twinfer.Model.load(url, { cache: false, contextLength: 128 });
        const loaded = performance.now();
        const digest = (await model.digest(tokens)) as string;
        return { digest, memory: model.info.memoryBytes as number, loadSeconds: (loaded - begun) / 1000, evalSeconds: (performance.now() - loaded) / 1000 };
      },
      ['/generated/large.gguf', tokens] as const,
    );
    console.log(found);
    assert.equal(found.digest, expected);
    assert.ok(found.memory < length * 1.1, `${found.memory} bytes of memory for a file of ${length}`);
  });
});
