/**
 * Requests that SQL functions answer: from NATS and from SQL, with every kind of answer and error.
 */
import { type Msg, RequestError } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serve } from "../../src/nats/serve/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { slowIt } from "../support/slow-it.js";
import { keptLog } from "./role/log.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

/** Long enough for what does not hang, on a machine with much other work, too. */
const generous = { responder_timeout_ms: "60000" };

beforeAll(async () => {
  world = await bridgeWorld({
    responderSessions: 1,
    serverOptions: generous,
    sql: `
      CREATE TABLE ran (id bigserial, word text, pid int DEFAULT pg_backend_pid());
      CREATE FUNCTION bytes(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload || '!'::bytea$$;
      CREATE FUNCTION words(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql
        AS $$SELECT concat_ws('|', payload, subject, reply_to LIKE '_INBOX.%')$$;
      CREATE FUNCTION as_told(payload text, subject text, reply_to text) RETURNS text LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO ran (word) VALUES (payload);
        CASE split_part(payload, ' ', 1)
          WHEN 'fail' THEN RAISE EXCEPTION 'it was told to:%', E'\\n' || 'grüße' USING ERRCODE = 'ZZ001', DETAIL = 'a secret row';
          WHEN 'null' THEN RETURN NULL;
          WHEN 'sleep' THEN PERFORM pg_sleep(split_part(payload, ' ', 2)::float8);
          WHEN 'large' THEN RETURN repeat('ä', split_part(payload, ' ', 2)::int / 2);
          WHEN 'cling' THEN
            LOOP
              BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END;
            END LOOP;
          WHEN 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid());
          WHEN 'missing' THEN RAISE EXCEPTION 'no such file' USING ERRCODE = '58P01';
          ELSE NULL;
        END CASE;
        RETURN payload;
      END $$;
      CREATE TABLE acted (effect text);
      -- Tells that it runs, and goes on when nobody holds the lock.
      CREATE FUNCTION acts(payload text, subject text, reply_to text) RETURNS text LANGUAGE plpgsql AS $$
      BEGIN
        IF payload <> '' THEN
          PERFORM nats_publish_text(payload, 'runs');
          INSERT INTO acted VALUES (payload);
          PERFORM pg_advisory_xact_lock(4711);
        END IF;
        RETURN payload;
      END $$;
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

async function register(subject: string, name: string): Promise<void> {
  await world.client.query("SELECT litmus_pgnats_register_responder($1, $2::regproc)", [subject, name]);
  await world.live(subject);
}

const ask = (subject: string, payload: string | Uint8Array): Promise<Msg> =>
  world.nats.request(subject, payload, { timeout: 60_000 });

/** From now on responders have that much time. */
async function allow(options: typeof generous): Promise<void> {
  await defineServer(world.client, testNatsUrl(), options);
  await world.value("SELECT litmus_pgnats_reload_conf()");
}

const errorOf = (message: Msg): [string, string] => [
  message.headers?.get("Nats-Service-Error-Code") ?? "",
  message.headers?.get("Nats-Service-Error") ?? "",
];

describe("a responder", () => {
  it("of bytes answers whatever bytes it is sent, also none, and of up to a megabyte", async () => {
    const subject = `${world.prefix}.bytes`;
    await register(subject, "bytes");
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    for (const payload of [Buffer.alloc(0), all, Buffer.alloc(1024 * 1024 - 1, all)]) {
      const reply = await ask(subject, payload);
      expect(Buffer.from(reply.data).equals(Buffer.concat([payload, Buffer.from("!")]))).toBe(true);
      expect(reply.headers?.get("Nats-Service-Error-Code") ?? "").toBe("");
    }
    const tooLarge = await ask(subject, Buffer.alloc(1024 * 1024));
    expect(errorOf(tooLarge)).toEqual(["500", expect.stringContaining("max_payload")]);
  });

  it("of text has the payload, the subject that was asked and the reply subject", async () => {
    const subject = `${world.prefix}.words`;
    await register(`${subject}.*`, "words");
    await world.live(`${subject}.x`);
    expect((await ask(`${subject}.x`, "grüße 🚢")).string()).toBe(`grüße 🚢|${subject}.x|t`);
    expect((await ask(`${subject}.x`, "")).string()).toBe(`|${subject}.x|t`);
    const noText = await ask(`${subject}.x`, Buffer.from([0xff, 0xfe]));
    expect(errorOf(noText)).toEqual(["500", expect.stringMatching(/^SQLSTATE 22021/)]);
  });

  slowIt("reports errors in headers: the function's, a timeout's, a lost session's, and goes on", async () => {
    const subject = `${world.prefix}.told`;
    await register(subject, "as_told");
    expect(errorOf(await ask(subject, "fail"))).toEqual(["500", "SQLSTATE ZZ001: it was told to: grüße"]);
    expect((await ask(subject, "fail")).data.length).toBe(0);
    await allow({ responder_timeout_ms: "500" });
    expect(errorOf(await ask(subject, "sleep 60"))[0]).toBe("504");
    expect(errorOf(await ask(subject, "cling"))[0]).toBe("504");
    await allow(generous);
    expect(errorOf(await ask(subject, "die"))[0]).toMatch(/^50[03]$/);
    expect(errorOf(await ask(subject, "missing"))).toEqual(["500", "SQLSTATE 58P01: no such file"]);
    expect((await ask(subject, "on")).string()).toBe("on");
    const none = await ask(subject, "null");
    expect([none.data.length, ...errorOf(none)]).toEqual([0, "", ""]);
    expect((await ask(subject, "large 1000000")).data.length).toBe(1_000_000);
    expect(errorOf(await ask(subject, "large 4000000"))[0]).toBe("500");
  });

  it("has the time that responder_timeout_ms gives it, also when that is changed", async () => {
    const subject = `${world.prefix}.time`;
    await register(subject, "as_told");
    await allow({ responder_timeout_ms: "200" });
    // With more time it would answer.
    expect(errorOf(await ask(subject, "sleep 1"))[0]).toBe("504");
    await allow(generous);
    expect((await ask(subject, "sleep 1")).string()).toBe("sleep 1");
  });

  it("is replaced by another function without a gap, and unregistered at once", async () => {
    const subject = `${world.prefix}.replaced`;
    await register(subject, "bytes");
    const answers = new Set<string>();
    let isOver = false;
    let asked = 0;
    const asking = (async () => {
      while (!isOver) {
        asked += 1;
        const reply = await ask(subject, "x");
        answers.add(errorOf(reply)[0] || reply.string());
      }
    })();
    for (let n = 0; n < 5; n++) {
      for (const name of ["as_told", "bytes"]) {
        await world.client.query("SELECT litmus_pgnats_register_responder($1, $2::regproc)", [subject, name]);
        const seen = asked;
        await eventually("more was asked", () => asked > seen + 3);
      }
    }
    isOver = true;
    await asking;
    // The function may have been running when it was replaced: it is not run twice.
    answers.delete("503");
    expect([...answers].sort()).toEqual(["x", "x!"]);
    await world.client.query("SELECT litmus_pgnats_unregister_responder($1)", [subject]);
    await eventually("nobody answers", async () => !(await world.hears(subject)));
    await expect(ask(subject, "x")).rejects.toBeInstanceOf(RequestError);
  });

  describe("whose function runs", () => {
    /** Asks it, and resolves when it runs, which it does until `goOn`. */
    async function running(subject: string) {
      const effect = `${subject}.effect`;
      const effects: string[] = [];
      const heard = world.nats.subscribe(effect, {
        callback: (_error, message) => void effects.push(message.string()),
      });
      await register(subject, "acts");
      await world.client.query("SELECT pg_advisory_lock(4711)");
      const answer = ask(subject, effect);
      await eventually("its function runs", () => effects.length > 0);
      return {
        answer,
        effect,
        goOn: () => world.client.query("SELECT pg_advisory_unlock(4711)"),
        /** Number of times that the function has run. */
        async count(): Promise<number> {
          await world.nats.flush();
          heard.unsubscribe();
          return effects.length;
        },
      };
    }

    it.each([
      ["replaced", "SELECT litmus_pgnats_register_responder($1, 'bytes')"],
      ["removed", "SELECT litmus_pgnats_unregister_responder($1)"],
    ])("and that is %s meanwhile has run once, and who asked is told", async (how, statement) => {
      const subject = `${world.prefix}.while.${how}`;
      const { answer, effect, goOn, count } = await running(subject);
      await world.client.query(statement, [subject]);
      await goOn();
      expect(errorOf(await answer)).toEqual(["503", "the responder was removed or replaced before it could answer"]);
      expect(await count()).toBe(1);
      expect(await world.count(`SELECT count(*) FROM acted WHERE effect = '${effect}'`)).toBe(0);
    });
  });

  it("is found as a micro service, with its statistics", async () => {
    const subject = `${world.prefix}.found`;
    // Services of other tests have other names.
    const name = `found_${world.database.name}`;
    await world.client.query(`CREATE FUNCTION ${name}(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload'`);
    await register(subject, name);
    await ask(subject, "x");
    interface Service {
      readonly endpoints: readonly { readonly num_requests: number }[];
    }
    const { endpoints } = (await ask(`$SRV.STATS.public_${name}`, "")).json<Service>();
    expect(endpoints).toMatchObject([{ subject, num_errors: 0 }]);
    expect(endpoints[0]!.num_requests).toBeGreaterThan(0);
  });
});

describe("requests of SQL to SQL in one database", () => {
  it("are answered, 20 at once with one session for all of them", async () => {
    const subject = `${world.prefix}.sql`;
    await register(subject, "as_told");
    const sessions = await Promise.all(Array.from({ length: 20 }, () => world.connect()));
    try {
      const answers = await Promise.all(
        sessions.map(async (session, n) => {
          const text = "SELECT convert_from(nats_request_text($1, $2, 20000), 'UTF8') AS answer";
          return (await session.query<{ answer: string }>(text, [subject, `from ${n}`])).rows[0]!.answer;
        }),
      );
      expect(answers).toEqual(sessions.map((_, n) => `from ${n}`));
    } finally {
      await Promise.all(sessions.map((session) => session.end()));
    }
  });

  it("see what the caller has committed, and not what it has not", async () => {
    const subject = `${world.prefix}.sees`;
    await world.client.query(`
      CREATE TABLE notes (note text);
      CREATE FUNCTION notes(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql
        AS $$SELECT coalesce(string_agg(note, ','), 'none') FROM notes$$`);
    await register(subject, "notes");
    const asked = "SELECT convert_from(nats_request_text($1, '', 5000), 'UTF8')";
    await world.client.query("BEGIN; INSERT INTO notes VALUES ('mine')");
    expect(await world.value(asked, [subject])).toBe("none");
    await world.client.query("COMMIT");
    expect(await world.value(asked, [subject])).toBe("mine");
  });

  it("tell the error of the function as an error of SQL, or give its empty answer", async () => {
    const subject = `${world.prefix}.sqlerror`;
    await register(subject, "as_told");
    expect(await world.errorOf("SELECT nats_request_text($1, 'fail', 5000)", [subject])).toMatchObject({
      code: "NA000",
      message: `The service at "${subject}" answered with error 500: SQLSTATE ZZ001: it was told to: grüße.`,
    });
    expect(await world.value("SELECT nats_request_text($1, 'null', 5000)", [subject])).toEqual(Buffer.alloc(0));
  });
});

describe("several processes", () => {
  it("share the requests", async () => {
    const log = keptLog();
    await using _second = await serve({
      databaseUrl: world.database.url,
      listen: "127.0.0.1:0",
      responderSessions: 1,
      logger: log.logger,
    });
    const leads = "another process is the leader of the subscriptions";
    const told = () => log.lines.filter(({ message }) => message === leads);
    await eventually("it knows who leads", () => told().length > 0);
    expect(told()).toEqual([{ level: "info", message: leads, details: { epoch: expect.any(BigInt) } }]);
    const subject = `${world.prefix}.shared`;
    await register(subject, "as_told");
    const sessions = () => world.count("SELECT count(DISTINCT pid) FROM ran");
    await eventually("both answer", async () => {
      await ask(subject, "anybody");
      return (await sessions()) > 1;
    });
    await world.client.query("TRUNCATE ran");
    await Promise.all(Array.from({ length: 100 }, (_, n) => ask(subject, `${n}`)));
    const runs = await world.rows<{ word: string }>("SELECT word FROM ran WHERE word <> ''");
    expect(runs.map(({ word }) => Number(word)).sort((one, other) => one - other)).toEqual(
      Array.from({ length: 100 }, (_, n) => n),
    );
    expect(await sessions()).toBeGreaterThan(1);
  });
});
