// Stores as the original writes them: @treehub/level 0.3.0 on leveldown. What it says of each goes into answers.json.
//
//   (cd benchmarks/node && npm ci) && node tests/golden/original/make.mjs
//
// Each store becomes a <name>.tar.xz beside this file. They are made once, and never change.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const require = createRequire(join(here, '../../../benchmarks/node/package.json'))
const Level = require('@treehub/level')
const leveldown = require('leveldown')

const key = (n) => [`plain ${n}`, `日本 ${n}`, `\u{1f600} ${n}`, `quote " ${n}`][n % 4]
const value = (n) => [n, { n, text: 'é\u{1f600}\n' }, [n, null, true, 1.5], `text ${n}`][n % 4]

/** A server after so many changes, most of them in batches. Each fifth deletes what the one before it has put. */
async function serve(level, count) {
  const changes = Array.from({ length: count }, (_, index) => {
    const n = index + 1
    return n % 5 ? { type: 'put', key: key(n), value: value(n) } : { type: 'del', key: key(n - 1) }
  })
  await level.put(changes[0].key, changes[0].value)
  for (let at = 1; at < count; at += 97) await level.batch(changes.slice(at, Math.min(count - 1, at + 97)))
  await level.change(level.CID, [count % 5 ? [key(count), value(count)] : [key(count - 1)]])
}

/** A client that has pulled twice and pushed once, and written since. */
async function consume(level) {
  const pulled = Array.from({ length: 40 }, (_, n) => (n % 7 ? [key(n), value(n)] : [key(n)]))
  await level.apply(40, pulled)
  await level.put('pushed', 1)
  await level.clean(41, ['pushed'])
  for (let n = 100; n < 112; n++) await level.put(key(n), value(n))
  await level.batch([{ type: 'del', key: key(1) }, { type: 'del', key: key(2) }, { type: 'put', key: key(3), value: 'mine' }])
  await level.apply(43, [[key(5), 'theirs'], [key(6)]])
}

async function make(name, mode, story) {
  const folder = mkdtempSync(join(tmpdir(), 'original-'))
  const level = new Level({ name: join(folder, 'store'), backend: leveldown, mode })
  await level.open()
  await story(level)
  const all = await level.level.base.query()
  const answers = { cid: level.CID, items: await level.query(), all }
  if (mode === Level.CLIENT) answers.dirty = await level.dirty(-1)
  await level.close()
  writeFileSync(join(folder, 'answers.json'), JSON.stringify(answers))
  for (const needless of ['LOG', 'LOG.old', 'LOCK']) rmSync(join(folder, 'store', needless), { force: true })
  const packed = join(here, `${name}.tar.xz`)
  execFileSync('tar', ['--owner=0', '--group=0', '--mtime=2026-01-01', '--sort=name', '-cJf', packed, '-C', folder, '.'])
  rmSync(folder, { recursive: true })
}

await make('client', Level.CLIENT, consume)
for (const count of [5, 150, 20000]) await make(`server-${count}`, Level.SERVER, (level) => serve(level, count))
