/**
 * Calls that are cancelled: the session stays usable, and no call gets the answer of another.
 */
import type { Msg } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { withEnoughTime } from "../../support/timers.js";

let gateway: TestGateway;
/** Requests that wait for their answers. */
const asked: Msg[] = [];
beforeAll(async () => {
  gateway = await testGateway();
  gateway.nats.subscribe("cancelled.slow", { callback: (_error, request) => void asked.push(request) });
  gateway.nats.subscribe("cancelled.echo", { callback: (_error, request) => void request.respond(request.data) });
  await gateway.nats.flush();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

let session: pg.Client;
let pid: number;
beforeEach(async () => {
  session = await gateway.connect();
  // What cancels is to meet the call, and not the making of its connection.
  await session.query("SELECT nats_flush()");
  pid = (await session.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
  return () => session.end();
});

const cancel = (): Promise<unknown> => gateway.client.query("SELECT pg_cancel_backend($1)", [pid]);

/** A request that NATS has, and whose answer is owed. */
async function askSlowly(payload: string, timeoutMs: number): Promise<{ outcome: Promise<unknown>; request: Msg }> {
  const outcome = session
    .query("SELECT nats_request_text('cancelled.slow', $1, $2) AS answer", [payload, timeoutMs])
    .then(
      ({ rows }) => rows[0].answer.toString(),
      (error: pg.DatabaseError) => error.code,
    );
  await eventually("the request has come", () => asked.some((one) => one.string() === payload));
  const request = asked.splice(
    asked.findIndex((one) => one.string() === payload),
    1,
  )[0]!;
  return { outcome, request };
}

async function expectOwnAnswers(name: string): Promise<void> {
  for (let round = 0; round < 5; round++) {
    const { rows } = await session.query("SELECT nats_request_text('cancelled.echo', $1, 20000) AS answer", [
      `${name} ${round}`,
    ]);
    expect(rows[0].answer.toString()).toBe(`${name} ${round}`);
  }
}

it("by pg_cancel_backend: the call ends, and the next ones get their own answers", async () => {
  for (let round = 0; round < 3; round++) {
    const { outcome, request } = await askSlowly(`cancel ${round}`, 20_000);
    await cancel();
    request.respond("too late");
    expect(await outcome).toMatch(/^(57014|too late)$/);
    await expectOwnAnswers(`after ${round}`);
  }
});

it("by statement_timeout: the call ends by its own deadline at the latest", async () => {
  await withEnoughTime(200, async (limitMs) => {
    await session.query(`SET statement_timeout = ${limitMs}`);
    const asking = session.query("SELECT nats_request_text('cancelled.slow', 'timeout', $1)", [3 * limitMs]);
    await expect(asking).rejects.toMatchObject({ code: "57014" });
    const request = asked.pop();
    request?.respond("too late");
    return request;
  });
  await session.query("SET statement_timeout = 0");
  await expectOwnAnswers("after the timeout");
});

it("twice: while the first cancellation waits for the answer that is owed", async () => {
  for (let round = 0; round < 3; round++) {
    const { outcome, request } = await askSlowly(`twice ${round}`, 20_000);
    let ended = false;
    void outcome.then(() => {
      ended = true;
    });
    let cancellations = 0;
    await eventually("the call has ended", async () => {
      await cancel();
      if (++cancellations === 5) request.respond("too late");
      return ended;
    });
    expect(await outcome).toMatch(/^(57014|too late)$/);
    // The last cancellation may have come after the end.
    await session.query("SELECT 1").catch(() => undefined);
    await expectOwnAnswers(`after two, ${round}`);
  }
});

it("in a block that catches the cancellation and goes on", async () => {
  await withEnoughTime(200, async (limitMs) => {
    const block = session.query(`
      DO $$
      BEGIN
        PERFORM set_config('cancelled.in_time', 'f', false);
        BEGIN
          PERFORM nats_request_text('cancelled.slow', 'caught', ${limitMs});
        EXCEPTION
          WHEN query_canceled THEN PERFORM set_config('cancelled.in_time', 't', false);
          WHEN OTHERS THEN NULL;
        END;
        PERFORM set_config('cancelled.answer', convert_from(nats_request_text('cancelled.echo', 'mine', 20000), 'UTF8'), false);
      END
      $$`);
    await eventually("the request has come", () => asked.pop() !== undefined);
    await cancel();
    await block.catch((error: pg.DatabaseError) => expect(error.code).toBe("57014"));
    const settings =
      "SELECT current_setting('cancelled.in_time') AS in_time, current_setting('cancelled.answer', true) AS answer";
    const { rows } = await session.query(settings);
    if (rows[0].in_time !== "t") return undefined;
    expect(rows[0].answer).toBe("mine");
    return true;
  });
});

it("at random, in the middle of many calls of all kinds", async () => {
  const seen = new Set<string>();
  for (let round = 0; round < 20 || !seen.has("string"); round++) {
    const wanted = `random ${round}`;
    const call = session.query(
      "SELECT nats_put_text('cancelled', 'k', $1), nats_get_text('cancelled', 'k') AS value, convert_from(nats_request_text('cancelled.echo', $1, 20000), 'UTF8') AS answer",
      [wanted],
    );
    const cancelling = cancel();
    const outcome = await call.then(
      ({ rows }) => rows[0],
      (error: pg.DatabaseError) => error.code,
    );
    await cancelling;
    if (typeof outcome === "string") expect(outcome).toBe("57014");
    else expect(outcome).toMatchObject({ value: wanted, answer: wanted });
    seen.add(typeof outcome);
    await session.query("SELECT 1").catch((error: pg.DatabaseError) => expect(error.code).toBe("57014"));
    await expectOwnAnswers(wanted);
  }
});

it("by the end of the session: the gateway forgets it", async () => {
  await session.query("SELECT nats_publish_text('cancelled.x', 'x')");
  await eventually("those of the tests before have gone", () => gateway.serve.sessionCount === 1);
  const { outcome } = await askSlowly("terminated", 1000);
  await gateway.client.query("SELECT pg_terminate_backend($1)", [pid]);
  await outcome;
  await eventually("the gateway has no session", () => gateway.serve.sessionCount === 0);
});
