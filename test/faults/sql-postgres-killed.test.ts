/**
 * Postgres is killed and started again while `hawser serve` runs; and `hawser serve` is started while there is no Postgres.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { killsPerLoop, loopTimeoutMs, patienceMs, spread } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql, faultsOf, nothingWrong } from "./support/sql-audit.js";
import { prepareForSql } from "./support/sql-database.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";

const kills = killsPerLoop(10);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);
const recoveryLimitMs = 10_000;
const flags = ["--call-timeout-ms", `${patientLimits.callTimeoutMs}`];

it(
  "serves new sessions at once when Postgres is back, and follows the definition of the server again",
  async () => {
    await using postgres = await ownPostgres();
    await using nats = await startNatsServer({ jetStream: true });
    await using elsewhere = await startNatsServer();
    await prepareForSql(postgres.url, nats.url);
    await using serve = await ServeProcess.start(postgres.url, flags);
    const { pid } = serve;
    const recoveries: number[] = [];
    const followed: number[] = [];
    for (let round = 0; round < kills; round++) {
      const options = { databaseUrl: postgres.url, sessions: 20, seed: seed + round, ...patientLimits };
      await using witness = await SqlWitness.open(nats.url);
      await using cut = await SqlLoad.start({ ...options, witness, mayEnd: true });
      await cut.more(200);
      await postgres.kill(round % 2 === 0 ? "SIGKILL" : "SIGQUIT");
      await cut.stop();
      await postgres.start();
      const back = performance.now();
      await using freshWitness = await SqlWitness.open(nats.url);
      await using fresh = await SqlLoad.start({ ...options, witness: freshWitness });
      await fresh.recovered(back);
      recoveries.push(performance.now() - back);
      await fresh.more(200);
      await fresh.stop();
      const before = await auditSql(cut);
      const after = await auditSql(fresh);
      console.log(`Postgres killed: ${before.summary}\nafterwards: ${after.summary}`);
      expect([before, after].map(faultsOf)).toEqual([nothingWrong, nothingWrong]);
      expect(after.summary).toContain("errors: none");

      // Nobody tells the gateway to look: it hears of it.
      const begun = performance.now();
      await using client = await connected(postgres.url);
      for (const { url } of [elsewhere, nats]) {
        await defineServer(client.session, url);
        await eventually("the gateway uses the other server", async () => {
          const found = client.session.query<{ port: number }>("SELECT port FROM nats_get_server_info()");
          return await found.then(
            ({ rows }) => `${rows[0]!.port}` === new URL(url).port,
            () => false,
          );
        });
      }
      followed.push(performance.now() - begun);
    }
    expect(serve.isRunning && serve.pid === pid).toBe(true);
    console.log(
      `Postgres killed ${kills} times: new sessions served after ${spread(recoveries)}; two changes of the server ` +
        `followed within ${spread(followed)}`,
    );
    expect(Math.max(...recoveries)).toBeLessThan(recoveryLimitMs);
  },
  loopTimeoutMs(kills),
);

it("does not start without Postgres: it says so and ends, for whoever supervises it to start it again", {
  timeout: patienceMs,
}, async () => {
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url, testNatsUrl());
  await postgres.kill("SIGINT");
  const { port } = new URL(postgres.url);
  await using serve = await ServeProcess.make(postgres.url);
  serve.launch();
  const { status, stdout, stderr } = await serve.ended;
  expect({ status, stdout }).toEqual({ status: 74, stdout: "" });
  expect(stderr).toContain(`127.0.0.1:${port}`);
  expect(stderr).toContain("ECONNREFUSED");
  expect(stderr).not.toMatch(/\n\s+at /);

  await postgres.start();
  await serve.start();
  await using client = await connected(postgres.url);
  await client.session.query("SELECT nats_publish_text('sql-postgres-killed', 'hello')");
});

async function connected(databaseUrl: string): Promise<AsyncDisposable & { readonly session: pg.Client }> {
  const session = new pg.Client({ connectionString: databaseUrl });
  session.on("error", () => undefined);
  await session.connect();
  return { session, [Symbol.asyncDispose]: () => session.end() };
}
