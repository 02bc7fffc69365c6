import { describe, expect, it } from "vitest";
import { optionsFor, testConnector } from "../../nats/support/connectors.js";
import { startNatsServer } from "../../support/nats-server.js";
import { answer, client, responder, serviceConnection, testService } from "./support.js";

const limited = { user: "limited", pass: "x" };
const requester = { user: "requester", pass: "x" };

/** A server whose user `limited` has these permissions. */
const permitting = (permissions: string) => `
  authorization { users: [
    { user: requester, password: x }
    { user: limited, password: x, permissions: { ${permissions} } }
  ] }`;

describe("a server that does not let services be found", () => {
  it("is asked once, reported once, and has its requests answered", async () => {
    const config = permitting('subscribe: { deny: ["$SRV.>"] }');
    await using server = await startNatsServer({ config });
    const { service, logged } = testService({ "public.answer(bytea)": () => answer("yes") });
    await service.configure([responder("a")]);
    for (let times = 0; times < 2; times++) {
      const connection = await serviceConnection(server.url, limited);
      await service.attach(connection);
      expect(connection.isClosed()).toBe(false);
    }
    await service.configure([responder("a"), responder("b")]);
    const client1 = await client(server.url, requester);
    for (const subject of ["a", "b"]) expect((await client1.request(subject)).string()).toBe("yes");
    expect(logged).toMatchObject([
      { level: "warn", message: expect.stringContaining("$SRV.>") },
      { level: "debug", message: expect.stringContaining("$SRV.>") },
    ]);
    const refusals = server.log().match(/Subscription Violation.*/g)!;
    expect(refusals.map((line) => /Subject "([^"]*)"/.exec(line)?.[1])).toEqual(["$SRV.PING", "$SRV.PING"]);
  });
});

describe("a server that refuses one responder", () => {
  it("has the others answered, and takes it once it may", async () => {
    const config = permitting('subscribe: { deny: ["closed.>"] }');
    await using server = await startNatsServer({ config });
    const { service, logged } = testService({ "public.answer(bytea)": () => answer("yes") });
    await service.configure([responder("closed.a"), responder("open"), responder("closed.*")]);
    for (let times = 0; times < 2; times++) await service.attach(await serviceConnection(server.url, limited));
    await service.configure([responder("closed.a"), responder("open")]);
    const client1 = await client(server.url, requester);
    expect((await client1.request("open")).string()).toBe("yes");
    const warned = logged.filter(({ level }) => level === "warn").map(({ details }) => details);
    expect(warned).toEqual(
      ["closed.a", "closed.*"].map((subject) => ({ subject, reason: "PermissionViolationError" })),
    );
    const refused = service.stats().responders.map(({ subject, isRefused }) => [subject, isRefused]);
    expect(refused).toEqual([
      ["closed.a", true],
      ["open", false],
    ]);

    await server.reload(permitting(""));
    await service.attach(await serviceConnection(server.url, limited));
    expect((await client1.request("closed.a")).string()).toBe("yes");
    expect(service.stats().responders.map(({ isRefused }) => isRefused)).toEqual([false, false]);
  });
});

describe("a server that permits nothing but subscribing", () => {
  it("keeps its connection, though no answer gets through", async () => {
    const config = permitting('publish: { deny: [">"] }, subscribe: { allow: ["a", "b"] }');
    await using server = await startNatsServer({ config });
    const { connector } = testConnector();
    const { service } = testService({ "public.answer(bytea)": () => answer("yes") });
    await service.configure([responder("a"), responder("b")]);
    connector.configure(optionsFor(server, { username: "limited", password: "x" }));
    const connection = await connector.connected();
    const refused = new Promise((resolve) => {
      connector.on("refused", ({ operation }) => operation === "publish" && resolve(operation));
    });
    await service.attach(connection);
    const client1 = await client(server.url, requester);
    await expect(client1.request("a", "", { timeout: 300 })).rejects.toMatchObject({ code: "TIMEOUT" });
    await refused;
    expect(connector.connection).toBe(connection);
    expect(service.stats().responders).toMatchObject([{ requests: 1, isRefused: false }, { isRefused: false }]);
  });

  it("answers if it permits answers to requests", async () => {
    const config = permitting('publish: { deny: [">"] }, subscribe: { allow: ["a"] }, allow_responses: true');
    await using server = await startNatsServer({ config });
    const { service } = testService({ "public.answer(bytea)": () => answer("yes") });
    await service.configure([responder("a")]);
    await service.attach(await serviceConnection(server.url, limited));
    const client1 = await client(server.url, requester);
    expect((await client1.request("a")).string()).toBe("yes");
  });
});
