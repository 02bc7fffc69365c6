import { ErrorCode } from "nats";
import { describe, expect, it } from "vitest";
import { optionsFor, testConnector } from "../../nats/support/connectors.js";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { TcpProxy } from "../../transport/tcp-proxy.js";
import { answer, client, errorOf, gate, responder, served, serviceConnection, testService } from "./support.js";

describe("a changed list of responders", () => {
  it("leaves those alone that stay, their statistics too", async () => {
    const { service, requester } = await served({ "public.answer(bytea)": () => answer("") });
    await requester.request("ask");
    // Registered again, by another role: another wrapper, the same service.
    await service.configure([responder("b"), responder("ask", "public.answer(bytea)", 2)]);
    await requester.request("ask");
    await requester.request("b");
    const { responders } = service.stats();
    expect(responders.map(({ subject, requests }) => [subject, requests])).toEqual([
      ["ask", 2],
      ["b", 1],
    ]);
  });

  it("lets what runs for a removed one end, answers what waits by an error, and then there is no responder", async () => {
    const running = gate();
    const { service, requester } = await served(
      { "public.answer(bytea)": () => running.opened.then(() => answer("done")) },
      { responderSessions: 1 },
    );
    const first = requester.request("ask", "", { timeout: 20_000 });
    const second = errorOf(requester, "ask");
    await eventually("one runs, one waits", () => service.stats().responders[0]!.waiting === 1);
    await service.configure([]);
    expect(await second).toEqual([503, "the responder was removed or replaced before it could answer"]);
    await expect(requester.request("ask")).rejects.toMatchObject({ code: ErrorCode.NoResponders });
    running.open();
    expect((await first).string()).toBe("done");
  });

  it("replaces a function without a moment in which nobody answers; the new one takes over what waits", async () => {
    const running = gate();
    const { service, requester } = await served(
      {
        "public.old(bytea)": () => running.opened.then(() => answer("old")),
        "public.new(bytea)": () => answer("new"),
      },
      { responders: [responder("ask", "public.old(bytea)")], responderSessions: 1 },
    );
    const asked = [1, 2, 3].map(() => requester.request("ask", "", { timeout: 20_000 }));
    await eventually("two wait", () => service.stats().responders[0]!.waiting === 2);
    const changed = service.configure([responder("ask", "public.new(bytea)", 2)]);
    asked.push(requester.request("ask", "", { timeout: 20_000 }));
    await changed;
    running.open();
    expect((await Promise.all(asked)).map((each) => each.string())).toEqual(["old", "new", "new", "new"]);
    expect(service.stats().responders).toMatchObject([{ functionName: "public.new(bytea)", requests: 3 }]);
  });
});

describe("another connection", () => {
  it("takes over while requests go on, and none of them finds nobody", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    const { service } = testService(
      { "public.answer(bytea)": () => new Promise((resolve) => setImmediate(resolve, answer("yes"))) },
      { use: (connection) => connector.use(connection) },
    );
    await service.configure([responder("ask")]);
    let attached: Promise<void> | undefined;
    connector.on("connected", (connection) => {
      attached = service.attach(connection);
    });
    connector.configure(optionsFor(server));
    await connector.ready();
    await attached;
    const requester = await client(server.url);
    let isOver = false;
    const asking = Array.from({ length: 20 }, async () => {
      let count = 0;
      while (!isOver) {
        expect((await requester.request("ask", "", { timeout: 20_000 })).string()).toBe("yes");
        count += 1;
      }
      return count;
    });
    const connections = new Set([connector.connection]);
    for (let times = 0; times < 10; times++) {
      const before = service.stats().responders[0]!.requests;
      await connector.reconnect();
      connections.add(connector.connection);
      await eventually("more are answered", () => service.stats().responders[0]!.requests > before + 50);
    }
    isOver = true;
    const counts = await Promise.all(asking);
    expect(connections.size).toBe(11);
    const { requests, errors, dropped } = service.stats().responders[0]!;
    expect([requests, errors, dropped]).toEqual([counts.reduce((sum, count) => sum + count), 0, 0]);
  });

  it("takes over only when the server has its subscriptions", async () => {
    await using server = await startNatsServer();
    await using proxy = await TcpProxy.to(server.port);
    const { service } = testService({ "public.answer(bytea)": () => answer("yes") });
    await service.configure([responder("ask")]);
    const old = await serviceConnection(server.url);
    await service.attach(old);
    const requester = await client(server.url);
    const stalled = await serviceConnection(proxy.address);
    proxy.stall();
    const attached = service.attach(stalled);
    await old.flush();
    expect((await requester.request("ask")).string()).toBe("yes");
    proxy.cut();
    await attached;
  });

  it("leaves a running request to the old connection, which stays until it is answered", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    const running = gate();
    const { service } = testService(
      { "public.answer(bytea)": () => running.opened.then(() => answer("over the old one")) },
      { use: (connection) => connector.use(connection) },
    );
    await service.configure([responder("ask")]);
    connector.configure(optionsFor(server));
    const old = await connector.connected();
    await service.attach(old);
    const requester = await client(server.url);
    const asked = requester.request("ask", "", { timeout: 20_000 });
    await eventually("it runs", () => service.stats().running === 1);
    await connector.reconnect();
    await service.attach(connector.connection!);
    expect(old.isClosed()).toBe(false);
    running.open();
    expect((await asked).string()).toBe("over the old one");
    await old.closed();
  });

  it("after the server's death has all subscriptions and statistics; what was running is dropped", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    const running = gate();
    const { service, logged } = testService(
      {
        "public.answer(bytea)": ({ payload }) =>
          payload.length > 0 ? running.opened.then(() => answer("")) : answer("yes"),
      },
      { responderSessions: 1 },
    );
    await service.configure([responder("ask"), responder("b", "public.answer(bytea)", 2)]);
    connector.on("connected", (connection) => void service.attach(connection));
    connector.on("lost", () => service.detach());
    connector.configure(optionsFor(server));
    const requester = await client(server.url);
    await eventually("it answers", () =>
      requester.request("ask").then(
        () => true,
        () => false,
      ),
    );
    const before = service.stats().responders[0]!.requests;
    const lost = ["one", "two"].map((payload) =>
      requester.request("ask", payload, { timeout: 1_000 }).catch(() => undefined),
    );
    await eventually("one runs, one waits", () => service.stats().responders[0]!.waiting === 1);
    const first = connector.connection!;
    await server.kill();
    await first.closed();
    running.open();
    await eventually("both are dropped", () => service.stats().responders[0]!.dropped === 2);
    expect(logged.map(({ level }) => level)).toEqual(["debug", "debug"]);
    await server.restart();
    await Promise.all(lost);
    // What one asks that is about to connect again may be lost.
    const other = await client(server.url);
    for (const subject of ["ask", "b"]) {
      await eventually("it answers again", () =>
        other.request(subject).then(
          () => true,
          () => false,
        ),
      );
    }
    expect(service.stats().responders[0]!.requests).toBe(before + 1);
  });

  it("that ends at once, or has ended, does no harm", async () => {
    await using server = await startNatsServer();
    const { service, logged } = testService({ "public.answer(bytea)": () => answer("yes") });
    await service.configure([responder("ask")]);
    const [ended, ending] = [await serviceConnection(server.url), await serviceConnection(server.url)];
    await ended.close();
    await service.attach(ended);
    await Promise.all([service.attach(ending), ending.close()]);
    await service.configure([responder("ask"), responder("b")]);
    service.detach();
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    expect((await requester.request("b")).string()).toBe("yes");
    expect(logged).toEqual([]);
  });
});

describe("a service that stops", () => {
  it("takes nothing new, and resolves when what has come is answered", async () => {
    const running = gate();
    const { service, requester } = await served(
      { "public.answer(bytea)": () => running.opened.then(() => answer("done")) },
      { responderSessions: 1 },
    );
    const asked = [1, 2].map(() => requester.request("ask", "", { timeout: 20_000 }));
    await eventually("one waits", () => service.stats().responders[0]!.waiting === 1);
    const stopped = service.stop(60_000);
    await eventually("nobody is there for new ones", async () => {
      const outcome = await requester.request("ask", "", { timeout: 100 }).catch((error) => error.code);
      return outcome === ErrorCode.NoResponders;
    });
    running.open();
    await stopped;
    for (const each of await Promise.all(asked)) expect(each.headers).toBeUndefined();
    expect(service.stop(0)).toBe(stopped);
  });

  it("waits for nothing that runs beyond its deadline, and answers all by errors", async () => {
    await using server = await startNatsServer();
    const { service } = testService(
      { "public.answer(bytea)": () => new Promise(() => undefined) },
      { responderSessions: 1 },
    );
    await service.configure([responder("ask")]);
    const connection = await serviceConnection(server.url);
    await service.attach(connection);
    const requester = await client(server.url);
    const asked = [errorOf(requester, "ask"), errorOf(requester, "ask")];
    await eventually("one waits", () => service.stats().responders[0]!.waiting === 1);
    await service.stop(50);
    expect(service.stats().responders).toMatchObject([{ requests: 2, errors: 2, waiting: 0 }]);
    // As its owner does: what was published leaves.
    await connection.drain();
    expect(await Promise.all(asked)).toEqual([
      [503, "the answering process is shutting down; the function may or may not have taken effect"],
      [503, "the answering process is shutting down; the function was not run"],
    ]);
  });

  it("runs nothing that waits, though slots get free for it while it stops", async () => {
    let runs = 0;
    const { service, requester } = await served(
      {
        "public.answer(bytea)": () => {
          runs += 1;
          return new Promise(() => undefined);
        },
      },
      { responders: [responder("other"), responder("ask", undefined, 2)], responderSessions: 4 },
    );
    const asked = Array.from({ length: 6 }, () => errorOf(requester, "ask"));
    await eventually("four wait", () => service.stats().responders[1]!.waiting === 4);
    await service.stop(0);
    const texts = (await Promise.all(asked)).map((error) => error?.[1]);
    expect(texts.filter((text) => text?.endsWith("the function was not run"))).toHaveLength(4);
    expect(texts.filter((text) => text?.endsWith("the function may or may not have taken effect"))).toHaveLength(2);
    expect([runs, service.stats().responders[1]]).toMatchObject([2, { requests: 6, errors: 6 }]);
  });

  it("does nothing any more, and never had to have a connection", async () => {
    const { service, requester } = await served({ "public.answer(bytea)": () => answer("") });
    await service.stop(60_000);
    await expect(requester.request("ask")).rejects.toMatchObject({ code: ErrorCode.NoResponders });
  });
});
