/**
 * A gateway that stands still (SIGSTOP), as on a machine that swaps or sleeps: its kernel goes on taking connections and
 * bytes, so that nothing tells a waiting call from one whose answer takes long. What Postgres makes of that depends on its
 * version.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { beforeAll, expect, it, onTestFinished } from "vitest";
import { testNatsUrl, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";
import { ServeProcess } from "./support/serve-process.js";
import { sqlDatabase } from "./support/sql-database.js";
import { payloadOf } from "./support/sql-token.js";
import { SqlWitness } from "./support/sql-witness.js";

/** From these on dblink can be interrupted while it waits for an answer, and while it connects. Then it knows no time limit. */
const interruptibleCalls = 170_000;
const interruptibleConnects = 160_000;
let version = 0;

beforeAll(async () => {
  const [row] = await rowsOf(testServerUrl(), "SELECT current_setting('server_version_num')::integer AS version");
  version = row!["version"] as number;
});

it("a gateway that stands still keeps calls waiting until it goes on or their session is ended; then each has its own outcome", {
  timeout: patienceMs,
}, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  await using witness = await SqlWitness.open(testNatsUrl());
  await using serve = await ServeProcess.start(database.url);
  const names = ["patient", "limited", "cancelled", "ended"] as const;
  const [patient, limited, cancelled, ended] = (await Promise.all(names.map(() => session(database.url)))) as Four;
  const publish = (client: pg.Client, token: string) => timed(client, witness.core, token);
  const first = await Promise.all(
    [patient, limited, cancelled, ended].map((client, index) => publish(client, `${index}-0`)),
  );
  expect(first.map(({ code }) => code)).toEqual(["ok", "ok", "ok", "ok"]);
  await limited.query("SET statement_timeout = '300ms'");

  serve.signal("SIGSTOP");
  const calls = [patient, limited, cancelled, ended].map((client, index) => publish(client, `${index}-1`));
  const [waiting, timingOut, cancelling, ending] = calls as [Timed, Timed, Timed, Timed];
  await waitingForGateway(database.url, 4);
  const signals = performance.now();
  await signalBackends(database.url, "pg_terminate_backend", ended);
  if (version >= interruptibleCalls) {
    expect(await ending).toMatchObject({ code: "57P01" });
    // The first one makes dblink wait for the rest of the answer, the second one ends that.
    await signalBackends(database.url, "pg_cancel_backend", cancelled);
    await eventually("a second cancel ends it", async () => {
      await signalBackends(database.url, "pg_cancel_backend", cancelled);
      return await Promise.race([cancelling.then(() => true), delay(100, false)]);
    });
    expect(await cancelling).toMatchObject({ code: "57014" });
    console.log(`a gateway hangs: terminated and cancelled within ${Math.round(performance.now() - signals)} ms`);
    // Its next call connects anew, and is refused within its time: nothing is sent.
    await cancelled.query("SET statement_timeout = '300ms'");
    const next = await publish(cancelled, "2-2");
    expect(next.code).toBe("57014");
    await cancelled.query("RESET statement_timeout");
  } else {
    await signalBackends(database.url, "pg_cancel_backend", cancelled);
  }
  expect(await Promise.race([timingOut.then(() => "ended"), waiting.then(() => "ended"), "waits"])).toBe("waits");

  serve.signal("SIGCONT");
  expect(await waiting).toMatchObject({ code: "ok" });
  // Its time was over long ago: the caller hears of that, though the gateway has answered.
  expect((await timingOut).code).toMatch(/^(57014|ok)$/);
  await Promise.all([cancelling, ending]);
  await limited.query("RESET statement_timeout");
  const after = await Promise.all([patient, limited, cancelled].map((client, index) => publish(client, `${index}-3`)));
  expect(after.map(({ code }) => code)).toEqual(["ok", "ok", "ok"]);

  // Whoever was interrupted may have been served all the same, never twice.
  const confirmed = ["0-0", "1-0", "2-0", "3-0", "0-1", "0-3", "1-3", "2-3"];
  await witness.received(...confirmed);
  await witness.settled();
  expect(witness.damaged).toEqual([]);
  for (const token of confirmed) expect(witness.messages.get(token)).toBe(1);
  for (const token of ["1-1", "2-1", "3-1"]) expect(witness.messages.get(token) ?? 0).toBeLessThanOrEqual(1);
  expect(witness.messages.get("2-2")).toBeUndefined();
});

it("a gateway that stands still holds up those who connect until it is killed or their time is over, and nobody else's sessions", {
  timeout: patienceMs,
}, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  await using witness = await SqlWitness.open(testNatsUrl());
  await using other = await ServeProcess.start(database.url);
  const before = await session(database.url);
  expect(await timed(before, witness.core, "0-0")).toMatchObject({ code: "ok" });
  // The newest one is tried first.
  await using hanging = await ServeProcess.start(database.url);
  hanging.signal("SIGSTOP");
  const old = await timed(before, witness.core, "0-1");
  expect(old.code).toBe("ok");

  const [limited, patient] = [await session(database.url), await session(database.url)];
  const connecting = timed(patient, witness.core, "2-0");
  if (version >= interruptibleConnects) {
    await limited.query("SET statement_timeout = '300ms'");
    const call = await timed(limited, witness.core, "1-0");
    expect(call.code).toBe("57014");
    await limited.query("RESET statement_timeout");
    expect(await Promise.race([connecting, "waits"])).toBe("waits");
    await hanging.crash();
    // libpq tries the next one where nobody listens, and not where a connection breaks.
    expect(await connecting).toMatchObject({ code: "08001" });
  } else {
    expect(await connecting).toMatchObject({ code: "ok" });
  }
  expect(await timed(patient, witness.core, "2-1")).toMatchObject({ code: "ok" });
  expect(await timed(limited, witness.core, "1-1")).toMatchObject({ code: "ok" });
  expect(other.isRunning).toBe(true);
  const passedOver = version >= interruptibleConnects ? [] : ["2-0"];
  const confirmed = ["0-0", "0-1", "1-1", "2-1", ...passedOver];
  await witness.received(...confirmed);
  await witness.settled();
  expect(Object.fromEntries(witness.messages)).toEqual(Object.fromEntries(confirmed.map((token) => [token, 1])));
});

type Four = [pg.Client, pg.Client, pg.Client, pg.Client];
type Timed = ReturnType<typeof timed>;

async function session(databaseUrl: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.end().catch(() => undefined));
  return client;
}

/** Publishes the token's payload. @returns the SQLSTATE or "ok", and the duration in milliseconds */
async function timed(client: pg.Client, subject: string, token: string) {
  const begun = performance.now();
  const code = await client.query("SELECT nats_publish_text($1, $2)", [subject, payloadOf(token)]).then(
    () => "ok",
    (error: unknown) => (error instanceof pg.DatabaseError ? error.code : String(error)),
  );
  return { code, ms: performance.now() - begun };
}

async function signalBackends(
  databaseUrl: string,
  how: "pg_cancel_backend" | "pg_terminate_backend",
  client: pg.Client,
): Promise<void> {
  const { processID } = client as pg.Client & { readonly processID: number };
  await rowsOf(databaseUrl, `SELECT ${how}(${processID})`);
}

/** Resolves when so many calls are under way. Before Postgres 17 a call shows nothing of what it waits for. */
async function waitingForGateway(databaseUrl: string, count: number): Promise<void> {
  const sql = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
    AND query LIKE '%nats_publish_text%' AND pid <> pg_backend_pid()`;
  await eventually(`${count} calls wait`, async () => (await rowsOf(databaseUrl, sql)).length >= count);
}
