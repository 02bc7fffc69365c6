import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as functionsSql from "../../generated/ts/nats-functions/sql.js";
import * as optionsSql from "../../generated/ts/nats-options/sql.js";
import * as errorsSql from "../../generated/ts/sql/errors-schema.js";
import * as natsSql from "../../generated/ts/sql/nats-schema.js";
import * as peerSql from "../../generated/ts/sql/peer-schema.js";
import { migrations } from "../../src/jobs-and-peers/migrations/index.js";
import { install } from "../../src/operating/installation/index.js";
import { TestPeer } from "../peer/support/world.js";
import { testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";

it("generates SQL in ASCII alone, so that it can be run in a database of any encoding", () => {
  const texts = { ...errorsSql, ...natsSql, ...peerSql, ...functionsSql, ...optionsSql };
  const sql = Object.entries(texts).filter(([name]) => name.endsWith("Sql"));
  expect(sql.length).toBeGreaterThan(12);
  const beyond = sql.flatMap(([name, text]) =>
    [...(text as string).matchAll(/.*[^\n -~].*/g)].map(([line]) => `${name}: ${line}`),
  );
  expect(beyond).toEqual([]);
});

describe("a database that is not UTF-8", () => {
  const name = `hawser_latin1_${process.pid}`;
  let url: string;

  beforeAll(async () => {
    await onServer(testServerUrl(), `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`);
    const address = new URL(testServerUrl());
    address.pathname = `/${name}`;
    url = address.href;
    await install({ databaseUrl: url, nats: false });
  });
  afterAll(() => onServer(testServerUrl(), `DROP DATABASE ${name} WITH (FORCE)`));

  it("is prepared for peers", async () => {
    expect(await rowsOf(url, "SELECT id FROM hawser_data.migrations ORDER BY id")).toEqual(
      migrations.map(({ id }) => ({ id })),
    );
  });

  it("stores messages whose headers it cannot represent with their neighbours, and gives them as they were sent", async () => {
    const options = { listen: "127.0.0.1:0", databaseUrl: url };
    const away = new TestPeer({ ...options, name: "d-1", topic: "d" });
    const sender = new TestPeer({ ...options, name: "c-1", topic: "c" });
    try {
      await away.record();
      await sender.record();
      await sender.send("d", "before");
      await away.stop();
      const headers = [[], [["which", "\u65e5\u{1f600}"]], [["which", "\u00e9"]], [["which", 'a "\\u65e5"']]] as const;
      const receipts = await Promise.all(
        headers.map((pairs, nth) => sender.send("d", `message ${nth}`, { headers: pairs })),
      );
      expect(receipts.map(({ outcome }) => outcome)).toEqual(Array(4).fill("stored"));
      await away.record();
      await away.received.length(5);
      const own = away.received.all.slice(1).map((one) => one.headers.filter(([name]) => name === "which"));
      expect(own).toEqual(headers);
      await eventually("nothing waits", async () => (await sender.pending()).count === 0);
    } finally {
      await Promise.all([sender.stop({ timeoutMs: 2_000 }), away.stop({ timeoutMs: 2_000 })]);
    }
  });

  it("takes a dead letter with characters that it does not have, so that no channel stands still", async () => {
    const tuning = { ackTimeoutMs: 20_000, connectWaitMs: 20_000 };
    const options = { listen: "127.0.0.1:0", databaseUrl: url, tuning };
    const sender = new TestPeer({ ...options, name: "a-1", topic: "a" });
    const listener = new TestPeer({ ...options, name: "b-1", topic: "b", defaults: { retry: { attempts: 1 } } });
    try {
      await sender.record();
      await listener.record(({ payload }) => {
        const error = Buffer.from(payload).toString();
        if (error !== "fine") throw new Error(error);
      });
      await sender.send("b", "\u65e5 \u00e9", { headers: { which: "\u00e9" } });
      await sender.send("b", "\u00e9", { headers: { which: "\u65e5" } });
      await sender.send("b", "fine");
      await listener.received.length(3);
      const letters = "SELECT error_message, headers FROM hawser_data.dead_letters WHERE topic = 'b' ORDER BY id";
      await eventually("both are dead letters", async () => (await rowsOf(url, letters)).length === 2);
      const [first, second] = (await rowsOf(url, letters)) as { error_message: string; headers: unknown }[];
      // What has no need to be is not escaped, unless another one of the same moment needs it.
      expect(first?.error_message).toMatch(/^Error: \\u65e5 (\\u00e9|\u00e9)$/);
      expect(second?.headers).toContainEqual(["which", "\\u65e5"]);
      await eventually("nothing waits", async () => (await sender.pending()).count === 0);
    } finally {
      await Promise.all([sender.stop({ timeoutMs: 2_000 }), listener.stop({ timeoutMs: 2_000 })]);
    }
  });

  it("tries again, and takes as a dead letter, what is enqueued and fails with such characters", async () => {
    const defaults = { retry: { attempts: 2, delayMs: 1 } };
    const listener = new TestPeer({ listen: "127.0.0.1:0", databaseUrl: url, name: "q-1", topic: "q", defaults });
    try {
      await listener.record(() => {
        throw new Error("\u65e5 \u00e9");
      });
      await onServer(url, "SELECT hawser.enqueue('q', 'message'::text)");
      const letters = "SELECT error_message, failures FROM hawser_data.dead_letters WHERE topic = 'q'";
      await eventually("it is a dead letter", async () => (await rowsOf(url, letters)).length === 1);
      const message = expect.stringMatching(/^Error: \\u65e5/);
      expect(await rowsOf(url, letters)).toMatchObject([
        { error_message: message, failures: [{ message }, { message }] },
      ]);
      expect(listener.texts).toEqual(["message", "message"]);
    } finally {
      await listener.stop({ timeoutMs: 2_000 });
    }
  });
});
