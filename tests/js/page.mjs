// The script of the page in test_browser.py. It runs clients over IndexedDB, and posts the results.
import { BrowserLevel } from 'browser-level'

import { SyncedLevel } from '../../js/treehub-level.js'

const { url, other, token, keys } = JSON.parse(decodeURIComponent(location.hash.slice(1)))

async function itemsOf(level) {
  const items = []
  for await (const item of level.iterator()) items.push(item)
  return items
}

async function run() {
  const store = new BrowserLevel('notes')
  const level = new SyncedLevel(store)
  await level.batch(keys.map((key) => ({ type: 'put', key, value: { key } })))
  await level.batch(Array.from({ length: 1500 }, (_, n) => ({ type: 'put', key: `page ${n}`, value: n / 2 })))
  await level.put('both', 'page')
  const report = await level.sync(url, { token })
  await level.put('rejected', true)
  const refusal = await level.sync(other, { token }).catch((error) => ({ code: error.code, status: error.status }))
  await level.del('rejected')
  await store.close()

  // Two tabs open the store, and write and synchronise at the same time.
  const stores = [new BrowserLevel('notes'), new BrowserLevel('notes')]
  const tabs = stores.map((one) => new SyncedLevel(one))
  const work = tabs.map(async (tab, number) => {
    for (let n = 0; n < 20; n++) {
      await tab.put(`shared ${n % 5}`, [number, n])
      await tab.put(`tab ${number} ${n}`, n)
      if (n % 4 === 0) await tab.sync(url, { token })
    }
  })
  await Promise.all(work)
  await Promise.all(tabs.map((tab) => tab.sync(url, { token })))
  const [tab] = tabs
  return { report, refusal, items: await itemsOf(tab), pending: await tab.pending(), conflicts: await tab.conflicts() }
}

const result = await run().catch((error) => ({ error: `${error.stack}` }))
await fetch('/result', { method: 'POST', body: JSON.stringify(result) })
