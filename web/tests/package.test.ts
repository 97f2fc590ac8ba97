// The npm package as `npm pack` makes it: what is in it, and that a page can import it as it is.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { chromium } from 'playwright-core';
import { root } from './support/browser.ts';
import { TestServer } from './support/server.ts';

test('npm pack makes a package that a page imports', async () => {
  const folder = join(root, 'target/web-tests/pack');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  execFileSync('npm', ['pack', '--silent', '--workspace', 'web', '--pack-destination', folder], { cwd: root });
  const [archive] = readdirSync(folder);
  assert.match(archive ?? '', /^twinfer-\d.*\.tgz$/);
  const files = execFileSync('tar', ['tzf', join(folder, archive ?? '')]).toString().trim().split('\n');
  for (const file of ['package.json', 'README.md', 'dist/index.js', 'dist/index.d.ts', 'dist/worker.js', 'dist/thread.js']) {
    assert.ok(files.includes(`package/${file}`), `${file} is missing from ${files.join(' ')}`);
  }
  for (const build of ['simd', 'threads', 'relaxed']) {
    assert.ok(files.includes(`package/dist/wasm/${build}/twinfer_bg.wasm`), build);
  }
  assert.ok(!files.some((file) => /\/(ts|tests|src)\//.test(file)), 'sources are not part of it');

  execFileSync('tar', ['xzf', archive ?? ''], { cwd: folder });
  const server = await TestServer.start({ '/package/': join(folder, 'package/dist'), '/models/': join(root, 'models/demo'), '/': join(root, 'web/tests/pages') }, true);
  const browser = await chromium.launch({ executablePath: process.env.TWINFER_CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
  try {
    const page = await browser.newPage();
    await page.goto(`${server.origin}/harness.html`);
    await page.waitForFunction(() => 'twinfer' in window);
    const text = await page.evaluate(async () => {
      const model = await (window as any).twinfer.Model.load('/models/twinfer-demo-q4_k_m.gguf');
      return model.generate('Once upon a time', { temp: 0, maxTokens: 8 }).text();
    });
    assert.ok(text.length > 0);
  } finally {
    await browser.close();
    await server.stop();
  }
});
