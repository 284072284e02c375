// Makes the stores of the npm package @treehub/level 0.3.0 on leveldown. The package's own view of
// each store goes into answers.json.
//
//   (cd benchmarks/node && npm ci) && node tests/golden/npm/make.mjs
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

/** Make `count` changes, most in batches. Each fifth deletes the key of the one before it. */
async function fillServer(level, count) {
  const changes = Array.from({ length: count }, (_, index) => {
    const n = index + 1
    return n % 5 ? { type: 'put', key: key(n), value: value(n) } : { type: 'del', key: key(n - 1) }
  })
  await level.put(changes[0].key, changes[0].value)
  for (let at = 1; at < count; at += 97) await level.batch(changes.slice(at, Math.min(count - 1, at + 97)))
  await level.change(level.CID, [count % 5 ? [key(count), value(count)] : [key(count - 1)]])
}

/** Pull twice, push once, and write to a client. */
async function fillClient(level) {
  const pulled = Array.from({ length: 40 }, (_, n) => (n % 7 ? [key(n), value(n)] : [key(n)]))
  await level.apply(40, pulled)
  await level.put('pushed', 1)
  await level.clean(41, ['pushed'])
  for (let n = 100; n < 112; n++) await level.put(key(n), value(n))
  await level.batch([{ type: 'del', key: key(1) }, { type: 'del', key: key(2) }, { type: 'put', key: key(3), value: 'mine' }])
  await level.apply(43, [[key(5), 'theirs'], [key(6)]])
}

async function makeStore(name, mode, fill) {
  const folder = mkdtempSync(join(tmpdir(), 'npm-store-'))
  const level = new Level({ name: join(folder, 'store'), backend: leveldown, mode })
  await level.open()
  await fill(level)
  const all = await level.level.base.query()
  const answers = { cid: level.CID, items: await level.query(), all }
  if (mode === Level.CLIENT) answers.dirty = await level.dirty(-1)
  await level.close()
  writeFileSync(join(folder, 'answers.json'), JSON.stringify(answers))
  for (const unneeded of ['LOG', 'LOG.old', 'LOCK']) rmSync(join(folder, 'store', unneeded), { force: true })
  const archive = join(here, `${name}.tar.xz`)
  execFileSync('tar', ['--owner=0', '--group=0', '--mtime=2026-01-01', '--sort=name', '-cJf', archive, '-C', folder, '.'])
  rmSync(folder, { recursive: true })
}

await makeStore('client', Level.CLIENT, fillClient)
for (const count of [5, 150, 20000]) await makeStore(`server-${count}`, Level.SERVER, (level) => fillServer(level, count))
