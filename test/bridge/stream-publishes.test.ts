/**
 * Publishes of subscribed functions into streams: once for each message, however often the message is tried.
 */
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let manager: JetStreamManager;
let stream: string;
let subject: string;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE done (id bigserial, n text);
      CREATE FUNCTION passes_on(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        word text := convert_from(payload, 'UTF8');
        out text := replace(subject, '.in.', '.out.');
      BEGIN
        IF headers ? 'Probe' THEN RETURN; END IF;
        PERFORM nats_publish_text_stream(out, word);
        -- The same twice is two messages.
        PERFORM nats_publish_text_stream(out, word);
        IF word LIKE '%savepoint%' THEN
          FOR n IN 1..2 LOOP
            BEGIN
              PERFORM nats_publish_text_stream(out, word || ' taken back ' || n);
              RAISE EXCEPTION 'back';
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
          END LOOP;
          PERFORM nats_publish_text_stream(out, word || ' behind');
        END IF;
        PERFORM nats_publish_binary_stream_batch(out, ARRAY[payload, payload]);
        INSERT INTO done (n) VALUES (word);
        IF word LIKE 'fail%' THEN RAISE EXCEPTION 'it fails'; END IF;
      END $$;
      CREATE FUNCTION publishes_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM nats_publish_text_stream(NEW.subject, NEW.n);
        IF NEW.n LIKE 'fail%' THEN RAISE EXCEPTION 'it fails late'; END IF;
        RETURN NULL;
      END $$;
      CREATE TABLE later (subject text, n text);
      CREATE CONSTRAINT TRIGGER later AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION publishes_at_commit();
      CREATE FUNCTION inserts_later(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
        INSERT INTO later SELECT replace(subject, '.in.', '.out.'), convert_from(payload, 'UTF8') WHERE headers IS NULL $$;
    `,
  });
  manager = await jetstreamManager(world.nats);
});
afterAll(async () => world?.[Symbol.asyncDispose]());

let round = 0;
beforeEach(async () => {
  await world.client.query("TRUNCATE done, later; DELETE FROM hawser_data.dead_letters");
  round += 1;
  subject = `${world.prefix}.in.${round}`;
  stream = `${world.prefix}_${round}`;
  await manager.streams.add({ name: stream, subjects: [`${world.prefix}.out.${round}`] });
  return async () => {
    await manager.streams.delete(stream);
  };
});

/** All that is in the stream, in its order. */
async function stored(): Promise<string[]> {
  const { state } = await manager.streams.info(stream);
  const texts: string[] = [];
  for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
    texts.push((await manager.streams.getMessage(stream, { seq }))!.string());
  }
  return texts;
}

function counted(texts: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const text of texts) counts[text] = (counts[text] ?? 0) + 1;
  return counts;
}

describe("a function that publishes into a stream", () => {
  it("does it once for each message, though the batch is taken apart because one fails", async () => {
    await world.subscribe(subject, "passes_on(bytea, text, jsonb)");
    const words = Array.from({ length: 40 }, (_, n) => (n === 23 ? "fail" : `m${n}`));
    for (const word of words) world.nats.publish(subject, word);
    await world.counts(39, "SELECT count(*) FROM done");
    await world.counts(1, "SELECT count(*) FROM hawser_data.dead_letters");
    expect(counted(await stored())).toEqual(Object.fromEntries(words.map((word) => [word, 4])));
  });

  it("and takes some of it back does it once, too, and what it takes back is published nevertheless", async () => {
    await world.subscribe(subject, "passes_on(bytea, text, jsonb)");
    for (const word of ["a savepoint", "fail", "b savepoint"]) world.nats.publish(subject, word);
    await world.counts(2, "SELECT count(*) FROM done WHERE n LIKE '%savepoint'");
    const each = (word: string) => ({
      [word]: 4,
      [`${word} taken back 1`]: 1,
      [`${word} taken back 2`]: 1,
      [`${word} behind`]: 1,
    });
    expect(counted(await stored())).toEqual({ ...each("a savepoint"), fail: 4, ...each("b savepoint") });
  });

  it("does it once, though its session is ended and the message tried again", async () => {
    await world.client.query(`
      CREATE SEQUENCE tries_${round};
      CREATE FUNCTION dies_once(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF headers ? 'Probe' THEN RETURN; END IF;
        PERFORM nats_publish_text_stream(replace(subject, '.in.', '.out.'), convert_from(payload, 'UTF8'));
        IF nextval('tries_${round}') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        INSERT INTO done (n) VALUES ('died');
      END $$`);
    await world.subscribe(subject, "dies_once(bytea, text, jsonb)");
    world.nats.publish(subject, "once");
    await world.counts(1, "SELECT count(*) FROM done WHERE n = 'died'");
    expect(await stored()).toEqual(["once"]);
  });

  it("from a deferred trigger may do it again when messages are tried again: the documentation says so", async () => {
    await world.subscribe(subject, "inserts_later(bytea, text, jsonb)");
    for (const word of ["x", "fail", "y"]) world.nats.publish(subject, word);
    await world.counts(2, "SELECT count(*) FROM later");
    const texts = counted(await stored());
    expect(texts["x"]).toBeGreaterThanOrEqual(1);
    expect(texts["y"]).toBeGreaterThanOrEqual(1);
  });

  it("does it again for the same content in another message", async () => {
    await world.subscribe(subject, "passes_on(bytea, text, jsonb)");
    world.nats.publish(subject, "same");
    world.nats.publish(subject, "same");
    await world.counts(2, "SELECT count(*) FROM done WHERE n = 'same'");
    expect(counted(await stored())).toEqual({ same: 8 });
  });

  it("does it for each of two functions of a subject", async () => {
    await world.client.query(`
      CREATE FUNCTION passes_on_too(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql
        AS $$SELECT passes_on(payload, subject, headers)$$`);
    await world.subscribe(subject, "passes_on(bytea, text, jsonb)");
    await world.client.query("SELECT nats_subscribe($1, 'passes_on_too')", [subject]);
    await world.subscribe(`${subject}.later`, "passes_on(bytea, text, jsonb)");
    world.nats.publish(subject, "two");
    await world.counts(2, "SELECT count(*) FROM done WHERE n = 'two'");
    expect(counted(await stored())).toEqual({ two: 8 });
  });
});
