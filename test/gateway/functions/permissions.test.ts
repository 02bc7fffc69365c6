/**
 * Operations that the NATS server does not permit. The server reports a refused publish later and on its own, so the
 * session's next call, or nats_flush(), raises it.
 */
import { inspect } from "node:util";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";
import { Witness } from "./witness.js";

const permissions = `
  accounts {
    HERE: {
      jetstream: enabled
      users: [
        { user: "limited", password: "limited", permissions: {
          publish: { deny: ["denied.>", "$JS.API.STREAM.CREATE.KV_denied", "$JS.API.*.*.KV_closed.>", "$KV.closed.>"] }
          subscribe: [ "_INBOX.>" ]
        } }
        { user: "all", password: "all" }
      ]
    }
  }
  no_auth_user: all
`;

let server: TestNatsServer;
let gateway: TestGateway;
let all: NatsConnection;
let witness: Witness;
/** Logged warnings of the gateway. */
const warnings: string[] = [];
beforeAll(async () => {
  server = await startNatsServer({ config: permissions, jetStream: true });
  const note = (details: object, message: string) => void warnings.push(`${message} ${inspect(details)}`);
  const logger = { debug: () => undefined, info: () => undefined, warn: note, error: note };
  const serverOptions = { username: "limited", password: "limited" };
  gateway = await testGateway({ natsUrl: server.url, serverOptions, logger });
  all = await connect({ servers: server.url });
  // Not to what buckets consist of: who listens there makes a missing bucket look like one that is silent.
  witness = await Witness.open(all, "*.*");
});
afterAll(async () => {
  await all?.close();
  await gateway?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

let session: pg.Client;
beforeEach(async () => {
  session = await gateway.connect();
  return () => session.end();
});

const violation = (subject: string) => ({
  code: "42501",
  message: `the NATS server refused a message of this session to "${subject}": its user is not permitted to publish there`,
  detail: expect.stringContaining(subject),
  hint: expect.stringContaining("permission"),
});

describe("a publish to a subject that is denied", () => {
  it("is raised by nats_flush(), once, or by the next call of the session for the subject; not by calls for others", async () => {
    for (const subject of [
      "denied.short",
      `denied.${"x".repeat(250)}`,
      // As long as it may be.
      `denied.${"x".repeat(1000)}`,
      "denied.größe.漢字.\u{1f6f3}",
      // Which the server quotes.
      'denied.a"b\\c',
      // The password of the gateway's user.
      "denied.limited.orders",
    ]) {
      const publish = () => session.query("SELECT nats_publish_text($1, 'x')", [subject]);
      const told = {
        code: "42501",
        message: `the NATS server refused a message of this session to "${subject}": its user is not permitted to publish there`,
        detail: expect.stringContaining("Permissions Violation"),
        hint: expect.stringContaining("permission"),
      };
      await publish();
      await expect(session.query("SELECT nats_flush()"), subject).rejects.toMatchObject(told);
      await session.query("SELECT nats_flush()");
      await publish();
      await session.query("SELECT version FROM nats_get_server_info()");
      // The server answers what came after it: by then it has told of the violation.
      await session.query("SELECT nats_get_text('permissions', 'k')");
      await session.query("SELECT nats_publish_text('permitted.next', 'x')");
      await expect(publish(), subject).rejects.toMatchObject(told);
      await session.query("SELECT nats_flush()");
      expect((await witness.messages(1)).map((one) => one.subject)).toEqual(["permitted.next"]);
    }
    expect(await witness.untaken()).toBe(0);
  });

  it("is raised after a batch", async () => {
    await session.query("SELECT nats_publish_text_batch('denied.batch', ARRAY['x', 'y'])");
    await expect(session.query("SELECT nats_flush()")).rejects.toMatchObject(violation("denied.batch"));
  });

  it("is not raised in another session, which gets only its own", async () => {
    const other = await gateway.connect();
    try {
      await other.query("SELECT nats_publish_text('permitted.other', 'x')");
      await session.query("SELECT nats_publish_text('denied.mine', 'x')");
      await other.query("SELECT nats_flush()");
      await other.query("SELECT nats_publish_text('denied.other', 'x')");
      await expect(other.query("SELECT nats_flush()")).rejects.toMatchObject(violation("denied.other"));
      await expect(session.query("SELECT nats_flush()")).rejects.toMatchObject(violation("denied.mine"));
    } finally {
      await other.end();
      await witness.messages(1);
    }
  });

  it("is raised with all subjects that were refused", async () => {
    await session.query("SELECT nats_publish_text('denied.one', 'x'), nats_publish_text('denied.two', 'x')");
    const error = await session.query("SELECT nats_flush()").catch((reason: pg.DatabaseError) => reason);
    expect(error).toMatchObject({ code: "42501", detail: expect.stringMatching(/denied\.one.*denied\.two/s) });
  });

  it("is logged once for thousands of messages of a batch", async () => {
    const sql =
      "SELECT nats_publish_text_batch('denied.thousands', array_agg('x'::text)) FROM generate_series(1, 20000)";
    await session.query(sql);
    await expect(session.query("SELECT nats_flush()")).rejects.toMatchObject(violation("denied.thousands"));
    expect(warnings.filter((line) => line.includes("denied.thousands"))).toHaveLength(1);
  });

  it("by a request or into a stream is raised by that very call", async () => {
    for (const call of [
      "nats_request_text('denied.request', 'x', 60000)",
      "nats_publish_text_stream('denied.stream', 'x')",
      "nats_publish_text_ack('denied.stream', 'x')",
      "nats_publish_text_stream_batch('denied.stream', ARRAY['x'])",
    ]) {
      const error = await session.query(`SELECT * FROM ${call}`).catch((reason: pg.DatabaseError) => reason);
      // By its time limit it were NA001.
      expect(error, call).toMatchObject({ code: "42501", hint: expect.stringContaining("permission") });
    }
    await session.query("SELECT nats_flush()");
  });
});

describe("a bucket that is denied", () => {
  it("is raised by the very call", async () => {
    for (const call of ["nats_put_text('closed', 'k', 'v')", "nats_put_text('denied', 'k', 'v')"]) {
      const error = await session.query(`SELECT ${call}`).catch((reason: pg.DatabaseError) => reason);
      expect(error, call).toMatchObject({ code: "42501" });
    }
  });
});
