/**
 * The role of real servers: promoted, demoted, stopped, hanging.
 */
import { chownSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import { expect, it, onTestFinished } from "vitest";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { type PostgresRole, RoleNotices, RoleWatch, type ServerAddress } from "../../../src/bridge/role/index.js";
import { serverAccount } from "../../../src/dev/account.js";
import { type OwnPostgres, ownPostgres } from "../../faults/support/own-postgres.js";
import { optionsFor, testLink } from "../../nats/support/links.js";
import { startProxy } from "../../store/support/proxy.js";
import { testDatabase, testNatsUrl } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { rowsOf } from "../../support/on-server.js";
import { startPrimaryAndStandby } from "../../support/standby.js";
import { httpServer, patroniAnswer } from "./http-server.js";
import { keptLog } from "./log.js";
import { slowestAnswer } from "./slowest-answer.js";

/** How soon a change is to be seen, where Postgres answers at once. */
const detectionMs = 2_000;

const unknownLine = "whether Postgres is a primary or a standby is not known";

interface Told {
  readonly role: PostgresRole;
  readonly address: ServerAddress | undefined;
  /** By `performance.now()`. */
  readonly at: number;
}

/** Watches until the test has ended, and keeps what is told. */
async function watchRole(databaseUrl: string, onRole: (told: Told) => void = () => undefined) {
  const told: Told[] = [];
  const log = keptLog();
  const watch = new RoleWatch({
    databaseUrl,
    logger: log.logger,
    onRole: (role, address) => {
      const one = { role, address, at: performance.now() };
      told.push(one);
      onRole(one);
    },
  });
  onTestFinished(() => watch.stop());
  await watch.start();
  return { watch, told, log, roles: () => told.map(({ role }) => role) };
}

const addressOf = ({ url }: OwnPostgres): ServerAddress => ({
  addresses: ["127.0.0.1"],
  port: Number(new URL(url).port),
});

/** A server that recovers as a standby from its next start on, though it has nobody to stream from. */
function makeStandbyOf({ dataDirectory }: OwnPostgres): void {
  const signal = join(dataDirectory, "standby.signal");
  writeFileSync(signal, "");
  const account = serverAccount();
  if (account !== undefined) chownSync(signal, account.uid, account.gid);
}

it("sees a promotion within 2 s, and a demotion within 2 s of the server's first answer; NATS is told of both", async () => {
  await using servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  const nats = await connect({ servers: testNatsUrl() });
  onTestFinished(() => nats.close());
  const subject = `role.${process.pid}.${Date.now()}`;
  const heard: string[] = [];
  nats.subscribe(subject, { callback: (_, message) => void heard.push(message.string()) });
  await nats.flush();
  const { link } = testLink();
  const notices = new RoleNotices({ link, logger: keptLog().logger });
  onTestFinished(() => notices.stop());
  const { hostname: host, port } = new URL(testNatsUrl());
  const patroni = await httpServer((_, response) => response.writeHead(503).end(patroniAnswer("pg-2")));
  const options = optionsFor({ host, port: Number(port) }, { notify_subject: subject, patroni_url: patroni });
  link.configure(options);
  notices.configure(options);
  const { told, roles } = await watchRole(standby.url, ({ role, address }) => {
    notices.found(role, address);
    notices.lead(role === "primary");
  });
  expect(roles()).toEqual(["standby"]);
  await eventually("the standby is told of", () => heard.length === 1);

  await primary.kill("SIGKILL");
  await servers.promote();
  const promotedAt = performance.now();
  const slowestMs = await slowestAnswer(standby.url, "the promotion is seen", () => roles().length === 2);
  expect(told[1]).toMatchObject({ role: "primary", address: addressOf(standby) });
  expect(told[1]!.at - promotedAt).toBeLessThan(detectionMs + slowestMs);
  await eventually("the promotion is told of", () => heard.length === 2);

  await standby.kill("SIGINT");
  makeStandbyOf(standby);
  await standby.start();
  const answeredAt = performance.now();
  const slowMs = await slowestAnswer(standby.url, "the demotion is seen", () => roles().at(-1) === "standby");
  expect(told.at(-1)!.at - answeredAt).toBeLessThan(detectionMs + slowMs);
  // Unless the restart was too quick for a look to fail, it is unknown in between.
  expect(roles().filter((role) => role !== "unknown")).toEqual(["standby", "primary", "standby"]);
  await eventually("the demotion is told of", () => heard.length === 3);
  const listening = JSON.stringify(addressOf(standby).addresses);
  expect(heard).toEqual(
    ["Replica", "Master", "Replica"].map(
      (status) =>
        `{"status":"${status}","listen_adresses":${listening},"listen_addresses":${listening},` +
        `"port":${addressOf(standby).port},"name":"pg-2"}`,
    ),
  );
});

it("is unknown while Postgres is away, also one that hangs, and while it is not there at first", async () => {
  await using server = await ownPostgres();
  const { url } = server;
  const { told, roles, log } = await watchRole(url);
  expect(told).toMatchObject([{ role: "primary", address: addressOf(server) }]);
  await server.kill("SIGKILL");
  await eventually("it is unknown", () => roles().at(-1) === "unknown");
  expect(told.at(-1)!.address).toBeUndefined();
  await eventually("the same problem again is no news", () => log.messages("debug").includes(unknownLine));
  const warned = log.lines.filter(({ level, message }) => level === "warn" && message === unknownLine);
  expect(new Set(warned.map(({ details }) => JSON.stringify(details))).size).toBe(warned.length);
  expect(warned.length).toBeGreaterThan(0);

  const late = await watchRole(url);
  expect(late.watch.role).toBe("unknown");
  expect(late.roles()).toEqual([]);

  await server.start();
  const startedAt = performance.now();
  const areKnown = () => roles().length === 3 && late.roles().length === 1;
  const slowestMs = await slowestAnswer(url, "it is known again", areKnown);
  for (const { at } of [told.at(-1)!, late.told.at(-1)!]) expect(at - startedAt).toBeLessThan(detectionMs + slowestMs);

  server.freeze();
  await eventually("it is unknown as long as it hangs", () => roles().length === 4);
  server.resume();
  await eventually("it is known when it goes on", () => roles().length === 5);
  expect(roles()).toEqual(["primary", "unknown", "primary", "unknown", "primary"]);
});

it("does not change when the session alone is ended", async () => {
  await using database = await testDatabase();
  const { roles, log } = await watchRole(database.url);
  const sessions = () =>
    rowsOf(
      database.url,
      "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity " +
        "WHERE datname = current_database() AND application_name = 'hawser serve: role'",
    );
  const [first] = await sessions();
  await eventually("there is another session", async () => {
    const [second] = await rowsOf(
      database.url,
      "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser serve: role'",
    );
    return second !== undefined && second["pid"] !== first!["pid"];
  });
  expect(roles()).toEqual(["primary"]);
  expect(log.messages("warn")).toEqual([]);
});

it("does not change when the session ends in the middle of a look", async () => {
  await using database = await testDatabase();
  await using proxy = await startProxy(database.url);
  const { roles, log } = await watchRole(proxy.url);
  proxy.keepAnswersBack();
  const [row] = await rowsOf(database.url, "SELECT clock_timestamp()::text AS now");
  const lookSince = `SELECT FROM pg_stat_activity WHERE datname = current_database()
    AND application_name = 'hawser serve: role' AND query_start > '${row!["now"]}'`;
  await eventually("a look waits for its answer", async () => (await rowsOf(database.url, lookSince)).length === 1);
  proxy.cut();
  await eventually("a session looks whose answers arrive", async () => {
    const rows = await rowsOf(database.url, `${lookSince} AND backend_start > '${row!["now"]}' AND state = 'idle'`);
    return rows.length === 1;
  });
  expect(roles()).toEqual(["primary"]);
  expect(log.messages("warn")).toEqual([]);
});

it("tells of another server that answers at the same address, and of where that one listens", async () => {
  await using servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  await using proxy = await startProxy(primary.url);
  const { told } = await watchRole(proxy.url);
  const lead = async (url: string) => {
    const before = told.length;
    proxy.leadTo(url);
    proxy.cut();
    await eventually("the change is seen", () => told.length > before);
  };
  await lead(standby.url);
  await servers.promote();
  await eventually("the promotion is seen", () => told.length === 3);
  await lead(primary.url);
  expect(told).toMatchObject([
    { role: "primary", address: addressOf(primary) },
    { role: "standby", address: addressOf(standby) },
    { role: "primary", address: addressOf(standby) },
    { role: "primary", address: addressOf(primary) },
  ]);
});

it("goes on when what follows the role fails", async () => {
  await using server = await ownPostgres();
  const { roles, log } = await watchRole(server.url, () => {
    throw new Error("a defect");
  });
  await server.kill("SIGKILL");
  await eventually("the next change is told", () => roles().length === 2);
  expect(log.messages("error")).toEqual(Array(2).fill("what follows the role of Postgres failed"));
});

it("tells nothing after it was stopped, also while a look hangs, and leaves no session", async () => {
  await using server = await ownPostgres();
  const { watch, roles } = await watchRole(server.url);
  server.freeze();
  const others: PostgresRole[] = [];
  const tookMs: number[] = [];
  for (let round = 0; round < 3; round++) {
    const hanging = new RoleWatch({
      databaseUrl: server.url,
      logger: keptLog().logger,
      onRole: (role) => others.push(role),
    });
    const started = hanging.start();
    const beganAt = performance.now();
    await hanging.stop();
    await started;
    tookMs.push(performance.now() - beganAt);
  }
  expect(others).toEqual([]);
  // The look may take longer. The best of three, as a machine with other work is slower.
  expect(Math.min(...tookMs)).toBeLessThan(0.75 * bridgeConstants.roleLookTimeoutMs);
  server.resume();
  await watch.stop();
  await eventually("the session is gone", async () => {
    const rows = await rowsOf(server.url, "SELECT FROM pg_stat_activity WHERE application_name = 'hawser serve: role'");
    return rows.length === 0;
  });
  expect(roles()).toEqual(["primary"]);
});
