/**
 * `/readyz` and the metrics say whether the logins of `hawser serve` have working sessions, and if not, which and why.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { bridgeLogin } from "../gateway/serving.js";
import { eventually } from "../support/eventually.js";
import { type NatsDatabase, natsDatabase } from "../support/gateway.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { slowIt } from "../support/slow-it.js";

let gateway: NatsDatabase;
let login: Awaited<ReturnType<typeof bridgeLogin>>;
let serve: HawserServer;

beforeAll(async () => {
  gateway = await natsDatabase();
  login = await bridgeLogin(gateway.database.url);
  serve = await startServer({ databaseUrl: login.url, listen: "127.0.0.1:0", monitor: "127.0.0.1:0" });
  await isReady("it is ready");
});
afterAll(async () => {
  await serve?.stop();
  await login?.drop();
  await gateway?.[Symbol.asyncDispose]();
});

async function readiness(): Promise<{ readonly status: number; readonly details: Readonly<Record<string, string>> }> {
  const response = await fetch(`http://${serve.monitorAddress}/readyz`);
  const { checks } = (await response.json()) as { checks: { name: string; ok: boolean; detail?: string }[] };
  const failing = checks.filter(({ ok }) => !ok).map(({ name, detail = "" }) => [name, detail]);
  return { status: response.status, details: Object.fromEntries(failing) };
}

/** Ready, with all of its permanent sessions: one that it opens later would be refused by what the next test does. */
const isReady = (what: string) =>
  eventually(what, async () => {
    const open = await rowsOf(
      gateway.database.url,
      `SELECT DISTINCT application_name FROM pg_stat_activity
        WHERE usename = '${login.name}' AND application_name IN ('hawser serve', 'hawser serve: bridge', 'hawser serve: lead')`,
    );
    return open.length === 3 && (await readiness()).status === 200;
  });

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  return Number(
    text
      .split("\n")
      .find((line) => line.startsWith(`${name}{`))
      ?.split(" ")
      .at(-1),
  );
}

/** Ends all sessions of a role. */
const endSessions = (role: string) =>
  onServer(gateway.database.url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`);

describe("hawser serve", () => {
  slowIt(
    "is not ready while its login has another password and no session is left, says so, and is ready again afterwards",
    async () => {
      await onServer(gateway.database.url, `ALTER ROLE ${login.name} PASSWORD 'another'`);
      try {
        await endSessions(login.name);
        const refused = `password authentication failed for user "${login.name}"`;
        await eventually("it is not ready, and why", async () => {
          const { status, details } = await readiness();
          return status === 503 && details["postgres"]?.includes(refused) === true;
        });
        expect((await readiness()).details["postgres"]).toMatch(/^could not open the session "hawser serve(: \w+)?": /);
        expect(await metric("hawser_postgres_up")).toBe(0);
      } finally {
        await onServer(gateway.database.url, `ALTER ROLE ${login.name} PASSWORD 'bridge'`);
      }
      await isReady("it is ready again");
      // Its next query tells.
      await eventually("Postgres is up", async () => (await metric("hawser_postgres_up")) === 1);
    },
  );

  it("is not ready while one of its sessions is refused, although the others work", async () => {
    await onServer(gateway.database.url, `ALTER ROLE ${login.name} NOLOGIN`);
    try {
      await onServer(
        gateway.database.url,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${login.name}' AND application_name = 'hawser serve: lead'`,
      );
      await eventually("it is not ready", async () => (await readiness()).status === 503);
      expect((await readiness()).details["postgres"]).toMatch(/^could not open the session "hawser serve: lead": /);
      expect(await metric("hawser_postgres_up")).toBe(0);
    } finally {
      await onServer(gateway.database.url, `ALTER ROLE ${login.name} LOGIN`);
    }
    await isReady("it is ready again");
  });

  it("is not ready while Postgres takes no writes, and says so", async () => {
    const { name } = gateway.database;
    await onServer(
      gateway.database.url,
      `ALTER ROLE ${login.name} IN DATABASE ${name} SET default_transaction_read_only = on`,
    );
    try {
      await endSessions(login.name);
      await eventually("it is not ready", async () => (await readiness()).status === 503);
      const refused =
        /^could not .*: cannot execute SELECT in a read-only transaction; if .*, set default_transaction_read_only to off/;
      await eventually("it says why", async () => refused.test((await readiness()).details["postgres"] ?? ""));
      expect(await metric("hawser_postgres_up")).toBe(0);
    } finally {
      await onServer(
        gateway.database.url,
        `ALTER ROLE ${login.name} IN DATABASE ${name} RESET default_transaction_read_only`,
      );
      await endSessions(login.name);
    }
    await isReady("it is ready again");
  });

  slowIt("is not ready while the login of subscribed functions is refused, and says so", async () => {
    const [{ name: executor }] = (await rowsOf(
      gateway.database.url,
      "SELECT quote_ident(user_name) AS name FROM hawser_bridge_data.executor_login",
    )) as [{ name: string }];
    const subject = `readiness.${gateway.database.name}`;
    await onServer(
      gateway.database.url,
      "CREATE FUNCTION public.take(bytea) RETURNS void LANGUAGE sql AS ''",
      `ALTER ROLE ${executor} NOLOGIN`,
      `SELECT nats_subscribe('${subject}', 'public.take'::regproc)`,
    );
    try {
      await eventually("it is not ready", async () => (await readiness()).status === 503);
      expect((await readiness()).details["postgres"]).toMatch(
        /^could not open the session "hawser executor": .*not permitted to log in/,
      );
      expect(await metric("hawser_postgres_up")).toBe(0);
    } finally {
      await onServer(gateway.database.url, `ALTER ROLE ${executor} LOGIN`);
    }
    await isReady("it is ready again");
  });
});
