/**
 * Messages that are due later: they come into the outbox when they are due, and can be taken back until then.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { nuid } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { enqueue, enqueueBatch } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { withEnoughTime } from "../support/timers.js";

let gateway: TestGateway;
let session: pg.Client;
beforeAll(async () => {
  gateway = await testGateway();
  session = await gateway.connect();
});
afterAll(async () => {
  await session?.end();
  await gateway?.[Symbol.asyncDispose]();
});

interface Stored {
  readonly text: string;
  readonly at: Date;
}

async function stream(): Promise<{ readonly subject: string; messages(): Promise<Stored[]> }> {
  const name = nuid.next();
  const manager = await jetstreamManager(gateway.nats);
  await manager.streams.add({ name, subjects: [`${name}.>`] });
  return {
    subject: `${name}.placed`,
    async messages() {
      const { state } = await manager.streams.info(name);
      const all = [];
      for (let seq = 1; seq <= state.last_seq; seq++) {
        const message = (await manager.streams.getMessage(name, { seq }))!;
        all.push({ text: message.string(), at: message.time });
      }
      return all;
    },
  };
}

const later = (): Promise<number> => gateway.value("SELECT count(*)::integer FROM hawser_data.queue");

describe("a message with deliver_at", () => {
  it("is published when it is due, not earlier, in the order of the times", async () => {
    const { subject, messages } = await stream();
    const start = await gateway.value<Date>("SELECT date_trunc('milliseconds', clock_timestamp())");
    const at = (ms: number): Date => new Date(start.getTime() + ms);
    const enqueue = "SELECT hawser.enqueue($1, $2, stream => true, key => 'k', deliver_at => $3)";
    await session.query("BEGIN");
    await session.query(enqueue, [subject, "third", at(800)]);
    await session.query(enqueue, [subject, "second", at(400)]);
    await session.query(enqueue, [subject, "past", at(-1000)]);
    await session.query("SAVEPOINT s");
    await session.query(enqueue, [subject, "never", at(400)]);
    await session.query("ROLLBACK TO s");
    await session.query("COMMIT");
    await eventually("all are there", async () => (await messages()).length === 3);
    const arrived = await messages();
    expect(arrived.map(({ text }) => text)).toEqual(["past", "second", "third"]);
    expect(arrived[1]!.at.getTime()).toBeGreaterThanOrEqual(at(400).getTime());
    expect(arrived[2]!.at.getTime()).toBeGreaterThanOrEqual(at(800).getTime());
    expect(await later()).toBe(0);
  });

  it("is found however late its transaction commits, and however early it is due", async () => {
    const { subject, messages } = await stream();
    const writer = await gateway.connect();
    await writer.query("BEGIN");
    await writer.query("SELECT hawser.enqueue($1, 'slow', stream => true, deliver_at => now() + interval '300 ms')", [
      subject,
    ]);
    await session.query("SELECT hawser.enqueue($1, 'quick', stream => true, deliver_at => now() + interval '600 ms')", [
      subject,
    ]);
    await eventually("the other one is there", async () => (await messages()).length === 1);
    await writer.query("COMMIT");
    await writer.end();
    await eventually("it is there", async () => (await messages()).length === 2);
    expect((await messages()).map(({ text }) => text)).toEqual(["quick", "slow"]);
  });

  it("can be cancelled by its number until it is due", async () => {
    const { subject, messages } = await stream();
    const deliverAt = new Date(Date.now() + 3_600_000);
    const id = await enqueue(session, { subject, stream: true }, "never", { deliverAt });
    await enqueueBatch(session, { subject, stream: true }, ["a", "b"], { deliverAt });
    const cancel = async (one: bigint): Promise<string> =>
      (await session.query("SELECT hawser.cancel($1)", [one])).rows[0].cancel;
    await session.query("BEGIN");
    expect(await cancel(id)).toBe("cancelled");
    await session.query("ROLLBACK");
    expect([await cancel(id), await cancel(id)]).toEqual(["cancelled", "not_waiting"]);
    expect(await later()).toBe(2);
    const next = await enqueue(session, { subject, stream: true }, "soon", { deliverAt: new Date(Date.now() + 100) });
    await eventually("it is there", async () => (await messages()).length === 1);
    expect(await cancel(next)).toBe("not_waiting");
    await session.query("DELETE FROM hawser_data.queue");
  });

  it("does not wait for a message that another session is cancelling", async () => {
    const other = await gateway.connect();
    const { subject, messages } = await withEnoughTime(300, async (limitMs) => {
      const { subject, messages } = await stream();
      const { rows } = await session.query(
        "SELECT hawser.enqueue($1, 'kept', stream => true, deliver_at => now() + $2 * interval '1 ms') AS id",
        [subject, limitMs],
      );
      await other.query("BEGIN");
      const { rows: cancelled } = await other.query("SELECT hawser.cancel($1) AS is", [rows[0].id]);
      if (cancelled[0].is === "cancelled") return { subject, messages };
      await other.query("ROLLBACK");
      return undefined;
    });
    await session.query("SELECT hawser.enqueue($1, 'next', stream => true, deliver_at => now() + interval '400 ms')", [
      subject,
    ]);
    await eventually("the next one is there", async () => (await messages()).length === 1);
    await other.query("ROLLBACK");
    await other.end();
    await eventually("both are there", async () => (await messages()).length === 2);
    expect((await messages()).map(({ text }) => text)).toEqual(["next", "kept"]);
  });

  it("must be due within ten years", async () => {
    for (const moment of ["infinity", "3000-01-01"]) {
      expect(
        await gateway.errorOf("SELECT hawser.enqueue('a', 'x', stream => false, deliver_at => $1::timestamptz)", [
          moment,
        ]),
      ).toMatchObject({ code: "22023", message: expect.stringContaining("must be within 3660 days") });
    }
    expect(await gateway.errorOf("SELECT hawser.cancel(NULL)")).toMatchObject({ code: "22004" });
  });
});
