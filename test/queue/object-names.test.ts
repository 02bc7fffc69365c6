/** Names that every object of JavaScript has a property of: of roles, topics, keys, headers, unique keys and peers. */
import pg from "pg";
import { afterEach, expect, it } from "vitest";
import { sharedPeerWorld } from "../peer/support/shared-world.js";

const world = sharedPeerWorld();
const names = ["constructor", "__proto__", "toString"] as const;

afterEach(async () => {
  for (const name of names) await world.query(`DROP OWNED BY "${name}"; DROP ROLE "${name}"`);
});

it("are names as any others in what is enqueued and handled", async () => {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  try {
    for (const name of names) {
      await client.query(`CREATE ROLE "${name}"; GRANT hawser_peer TO "${name}"; SET ROLE "${name}"`);
      for (const topic of names) {
        const headers = `{"${name}": "h"}`;
        await client.query("SELECT hawser.enqueue($1, 'plain'::text, headers => $2::jsonb)", [topic, headers]);
        await client.query("SELECT hawser.enqueue($1, 'keyed'::text, key => $2)", [topic, name]);
        await client.query("SELECT hawser.enqueue_unique($1, 'unique'::text, $2)", [topic, name]);
      }
      await client.query("RESET ROLE");
    }
  } finally {
    await client.end();
  }
  const worker = world.worker("constructor");
  await worker.record();
  for (const topic of names.filter((name) => name !== worker.topic)) await worker.recordTopic(topic);
  await worker.received.length(27);
  const expected = names.flatMap((topic) =>
    names.flatMap((role) => ["keyed", "plain", "unique"].map((text) => [topic, role, text].join())),
  );
  expect(worker.received.all.map(({ topic, enqueuedBy, text }) => [topic, enqueuedBy, text].join()).sort()).toEqual(
    expected.sort(),
  );
  for (const { text, headers, enqueuedBy } of worker.received.all)
    if (text === "plain") expect(headers).toContainEqual([enqueuedBy, "h"]);
});
