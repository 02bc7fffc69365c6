/**
 * Results of functions that exceed the size of a message, or of a string: they stay in Postgres, and nothing else is
 * affected.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
beforeAll(async () => {
  world = await bridgeWorld({
    serverOptions: { responder_timeout_ms: "60000" },
    sql: `
      CREATE TABLE ran (what text);
      CREATE FUNCTION returns_bytes(payload bytea) RETURNS bytea LANGUAGE plpgsql AS $$
        BEGIN
          IF payload = '' THEN RETURN ''; END IF;
          INSERT INTO ran VALUES (convert_from(payload, 'UTF8'));
          RETURN convert_to(repeat('x', convert_from(payload, 'UTF8')::int), 'UTF8');
        END $$;
      CREATE FUNCTION raises(payload bytea) RETURNS bytea LANGUAGE plpgsql AS $$
        BEGIN
          IF payload = '' THEN RETURN ''; END IF;
          RAISE EXCEPTION '%', repeat('x', convert_from(payload, 'UTF8')::int);
        END $$;
      CREATE FUNCTION raises_on_message(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
          IF payload <> '' THEN PERFORM public.raises(payload); END IF;
        END $$;
      CREATE FUNCTION answers(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload || '!'$$;
    `,
  });
});
afterAll(() => world?.[Symbol.asyncDispose]());

const size = 300 * 2 ** 20;

async function ask(subject: string, payload: string) {
  const { data, headers } = await world.nats.request(subject, payload, { timeout: 120_000 });
  return { data: Buffer.from(data).toString(), error: headers?.get("Nats-Service-Error") ?? "" };
}

it("an answer of 300 MiB is refused, its transaction is committed, and others are answered meanwhile", async () => {
  const subjects = { long: `${world.prefix}.long`, short: `${world.prefix}.short` };
  await world.client.query("SELECT litmus_pgnats_register_responder($1, 'returns_bytes')", [subjects.long]);
  await world.client.query("SELECT litmus_pgnats_register_responder($1, 'answers')", [subjects.short]);
  await Promise.all(Object.values(subjects).map((subject) => world.live(subject)));
  let isOver = false;
  const meanwhile = (async () => {
    let calls = 0;
    for (; !isOver; calls++) expect((await ask(subjects.short, "a")).data).toBe("a!");
    return calls;
  })();
  try {
    for (const bytes of [size, 67_108_865]) {
      const { error } = await ask(subjects.long, String(bytes));
      expect(error).toBe(`the answer has ${bytes} bytes, and the NATS server accepts at most 67108864 (max_payload)`);
    }
    // The most that is taken out of Postgres, which this server does not take.
    expect((await ask(subjects.long, "67108864")).error).toMatch(/^the answer has 67108864 bytes, and .* at most \d+/);
    expect(await ask(subjects.long, "5")).toEqual({ data: "xxxxx", error: "" });
  } finally {
    isOver = true;
  }
  expect(await meanwhile).toBeGreaterThan(0);
  expect(await world.count("SELECT count(*) FROM ran")).toBe(4);
});

it("an error of 300 MiB is the failure of its function alone", async () => {
  const subjects = { responder: `${world.prefix}.raises`, subscription: `${world.prefix}.on_message` };
  await world.client.query("SELECT litmus_pgnats_register_responder($1, 'raises')", [subjects.responder]);
  await world.live(subjects.responder);
  await world.subscribe(subjects.subscription, "raises_on_message(bytea)");
  expect((await ask(subjects.responder, String(size))).error).not.toBe("");
  world.nats.publish(subjects.subscription, String(size));
  await eventually(
    "the message is a dead letter",
    async () => (await world.count("SELECT count(*) FROM hawser_data.dead_letters")) === 1,
    120_000,
  );
  expect(await world.value("SELECT nats_get_text('long_results', 'k') IS NULL")).toBe(true);
});
