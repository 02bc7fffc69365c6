/**
 * Notices over a real NATS, heard by a client that knows nothing of ours.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { expect, it, onTestFinished } from "vitest";
import { next, optionsFor } from "../../nats/support/connectors.js";
import { fakeServer, welcoming } from "../../nats/support/fake-server.js";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { httpServer, patroniAnswer } from "./http-server.js";
import { address, testNotices, text } from "./notices.js";

const usual = "pgnats.postgresql.replication.status";

/** Keeps what is published at the server to the subject, from now on. */
async function listen(url: string, subject = usual): Promise<{ heard: string[]; nats: NatsConnection }> {
  const nats = await connect({ servers: url });
  onTestFinished(() => nats.close());
  const heard: string[] = [];
  nats.subscribe(subject, { callback: (_, message) => void heard.push(message.string()) });
  await nats.flush();
  return { heard, nats };
}

/** Notices over a server of their own, where they are heard. */
async function heardNotices() {
  const server = await startNatsServer();
  onTestFinished(() => server[Symbol.asyncDispose]());
  return { server, ...(await listen(server.url)), ...testNotices() };
}

it("a process that leads on a primary says so, one that finds itself on a standby as well, to the byte", async () => {
  const { server, heard, notices, configure } = await heardNotices();
  configure(optionsFor(server));
  notices.setRole("primary", address);
  notices.setLeading(true);
  await eventually("it is told", () => heard.length === 1);
  notices.setLeading(false);
  notices.setRole("standby", address);
  await eventually("that is told, too", () => heard.length === 2);
  expect(heard).toEqual([text("Master"), text("Replica")]);
});

it("has the name that Patroni gives, asked for each notice, and null if it gives none", async () => {
  const { server, heard, notices, configure, log } = await heardNotices();
  const names = ["pg-1", "pg-one"];
  const patroni = await httpServer((_, response) => response.end(patroniAnswer(names.shift())));
  const other = await httpServer((_, response) => response.end("no"));
  configure(optionsFor(server, { patroni_url: patroni }));
  notices.setRole("standby", address);
  await eventually("it is told", () => heard.length === 1);
  notices.setRole("primary", address);
  notices.setLeading(true);
  await eventually("it is told again", () => heard.length === 2);
  configure(optionsFor(server, { patroni_url: other }));
  notices.setRole("standby", address);
  await eventually("it is told without a name", () => heard.length === 3);
  expect(heard).toEqual([text("Replica", "pg-1"), text("Master", "pg-one"), text("Replica")]);
  const told = () => log.lines.filter(({ message }) => message === "published a role-change notice");
  await eventually("the log has all of them", () => told().length === 3);
  // `name` is that of the program in the lines of the log.
  expect(told().map(({ details }) => details)).toEqual(
    ["pg-1", "pg-one", null].map((patroniName) => ({
      status: expect.any(String),
      subject: expect.any(String),
      patroniName,
    })),
  );
});

it("only the newest state is published once there is a connection", async () => {
  const { server, heard, connector, notices } = await heardNotices();
  const options = optionsFor(server);
  notices.configure(options);
  notices.setRole("standby", address);
  notices.setRole("primary", address);
  notices.setLeading(true);
  connector.configure(options);
  await eventually("the newest is told", () => heard.length >= 1);
  expect(heard).toEqual([text("Master")]);
});

it("a notice is published once over each new connection, because the last one may not have arrived", async () => {
  await using server = await startNatsServer();
  const first = await listen(server.url);
  const { connector, notices, configure } = testNotices();
  configure(optionsFor(server));
  notices.setRole("standby", address);
  await eventually("it is told", () => first.heard.length === 1);
  configure(optionsFor(server));
  await connector.reconnect();
  await eventually("it is told again", () => first.heard.length === 2);
  notices.setRole("primary", address);
  notices.setLeading(true);
  await eventually("the next is told", () => first.heard.length >= 3);
  expect(first.heard).toEqual([text("Replica"), text("Replica"), text("Master")]);
});

it("a new subject gets the current role, and nothing is published without a defined server", async () => {
  await using server = await startNatsServer();
  const all = await listen(server.url, ">");
  const { connector, notices, configure } = testNotices();
  configure(optionsFor(server));
  notices.setRole("standby", address);
  await eventually("it is told", () => all.heard.length === 1);
  const there = await listen(server.url, "postgres.role");
  configure(optionsFor(server, { notify_subject: "postgres.role" }));
  await eventually("it is told there", () => there.heard.length === 1);
  connector.configure(undefined);
  notices.configure(undefined);
  notices.setRole("primary", address);
  notices.setLeading(true);
  const connected = next(connector, "connected");
  configure(optionsFor(server, { notify_subject: "postgres.role" }));
  await connected;
  await eventually("the newest is told there", () => there.heard.length === 2);
  expect(there.heard).toEqual([text("Replica"), text("Master")]);
  expect(all.heard).toHaveLength(3);
});

it("a notice that is replaced while Patroni is asked is not published", async () => {
  const { server, heard, connector, notices, configure } = await heardNotices();
  let answer: (() => void) | undefined;
  const patroni = await httpServer((_, response) => {
    if (answer === undefined) answer = () => response.end(patroniAnswer("late"));
    else response.end(patroniAnswer("pg-1"));
  });
  configure(optionsFor(server, { patroni_url: patroni }));
  await connector.ready();
  notices.setRole("standby", address);
  await eventually("Patroni is asked", () => answer !== undefined);
  notices.setRole("primary", address);
  notices.setLeading(true);
  answer!();
  await eventually("the newest is told", () => heard.length >= 1);
  expect(heard).toEqual([text("Master", "pg-1")]);
});

it("a server that permits only subscribing gets no further notices, and the refusal is logged once", async () => {
  await using server = await startNatsServer({
    config: 'authorization { users: [{ user: edge, password: edge, permissions: { publish: { deny: [">"] } } }] }',
  });
  const { connector, notices, configure, log } = testNotices();
  const lost: unknown[] = [];
  connector.on("lost", (error) => lost.push(error));
  configure(optionsFor(server, { username: "edge", password: "edge" }));
  notices.setRole("standby", address);
  const refusals = () => log.messages("warn").filter((message) => message.includes("does not permit"));
  await eventually("it is logged", () => refusals().length === 1);
  const refused = next(connector, "refused");
  notices.setRole("primary", address);
  notices.setLeading(true);
  await refused;
  const heard: string[] = [];
  connector.connection!.subscribe("a", { callback: (_, message) => void heard.push(message.string()) });
  await connector.connection!.flush();
  expect(refusals()).toHaveLength(1);
  await notices.stop();
  expect(log.messages("error")).toEqual([]);
  expect(lost).toEqual([]);
});

it("a notice that was lost with its connection is published over the next one", async () => {
  let connections = 0;
  const server = await fakeServer((socket) => {
    const isFirst = connections++ === 0;
    socket.on("data", (chunk) => {
      if (isFirst && chunk.toString("latin1").includes("PUB ")) socket.destroy();
    });
    welcoming(socket);
  });
  const { notices, configure } = testNotices();
  configure(optionsFor(server));
  notices.setRole("standby", address);
  await eventually("it is told twice", () => server.received().match(/PUB /g)?.length === 2);
});

it("one that is larger than the server takes is logged", async () => {
  await using server = await startNatsServer({ config: "max_payload: 64" });
  const { notices, configure, log } = testNotices();
  configure(optionsFor(server));
  notices.setRole("standby", address);
  await eventually("it is logged", () => log.messages("warn").includes("cannot publish a role-change notice"));
});

it("stop cancels the request to Patroni, and publishes nothing", async () => {
  await using server = await startNatsServer();
  const { heard, nats } = await listen(server.url);
  // Longer than a test may take.
  const { notices, configure, log } = testNotices({ patroniTimeoutMs: 600_000 });
  let isAsked = false;
  const patroni = await httpServer(() => {
    isAsked = true;
  });
  configure(optionsFor(server, { patroni_url: patroni }));
  notices.setRole("standby", address);
  await eventually("Patroni is asked", () => isAsked);
  await notices.stop();
  notices.setRole("primary", address);
  notices.setLeading(true);
  await nats.flush();
  expect(heard).toEqual([]);
  expect(log.lines).toEqual([]);
});
