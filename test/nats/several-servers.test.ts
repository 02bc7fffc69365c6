/**
 * Option `host` with several NATS servers: which are dialled, in which order, and what becomes of a connector whose server dies.
 */

import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it, onTestFinished } from "vitest";
import { natsConnectTimeoutMs } from "../../src/nats/connections/connect.js";
import { natsAddresses, ServerChoice } from "../../src/nats/connections/index.js";
import { natsServerAwayMs } from "../../src/nats/connections/server-choice.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { startNatsServer } from "../support/nats-server.js";
import { noTimersAbove } from "../support/timers.js";
import { connectError, next, optionsFor, secretsDirectory, testConnector } from "./support/connectors.js";

const names = (host: string, port = 4222): string[] => natsAddresses({ host, port }).map(({ name }) => name);

describe("the addresses of option host", () => {
  it("have their own port or that of option port, and IPv6 may stand in brackets or without", () => {
    expect(names("a,b:4223,c")).toEqual(["a:4222", "b:4223", "c:4222"]);
    expect(names("::1,[::2],[fe80::1%eth0]:5000,10.0.0.1:1", 7)).toEqual([
      "[::1]:7",
      "[::2]:7",
      "[fe80::1%eth0]:5000",
      "10.0.0.1:1",
    ]);
    expect(natsAddresses({ host: "[::2]:8", port: 7 })).toMatchObject([{ host: "::2", port: 8 }]);
    expect(names("a,a:4222,a:1")).toEqual(["a:4222", "a:1"]);
  });
});

describe("the choice", () => {
  const servers = natsAddresses({ host: "a,b,c", port: 4222 });
  const [a, b, c] = servers as [(typeof servers)[0], (typeof servers)[0], (typeof servers)[0]];
  const first = (choice: ServerChoice): string => choice.order(servers)[0]!.host;

  it("falls on each server for about as many processes that know nothing of each other", () => {
    const chosen = Array.from({ length: 300 }, (_, index) => first(new ServerChoice(`process ${index}`)));
    for (const { host } of servers) {
      expect(chosen.filter((one) => one === host).length).toBeGreaterThan(60);
    }
  });

  it("falls on the server that the fewest others use, and on an unavailable one last", () => {
    let now = 0;
    const choice = new ServerChoice("me", () => now);
    choice.setOthers([a.name, b.name, a.name]);
    expect(choice.order(servers)).toEqual([c, b, a]);
    choice.markUnavailable(c);
    expect(choice.order(servers)).toEqual([b, a, c]);
    choice.markUnavailable(b);
    choice.markAvailable(c);
    expect(choice.order(servers)).toEqual([c, a, b]);
    now = natsServerAwayMs;
    expect(choice.order(servers)).toEqual([c, b, a]);
  });

  it("finds a better server that two fewer use, and never an unavailable one", () => {
    const choice = new ServerChoice("me", () => 0);
    choice.setOthers([a.name, b.name]);
    expect(choice.better(servers, a.name)).toBe(c);
    choice.markUnavailable(c);
    expect(choice.better(servers, a.name)).toBeUndefined();
    choice.markAvailable(c);
    choice.setOthers([b.name]);
    expect(choice.better(servers, a.name)).toBeUndefined();
  });

  it("of any processes that move one after the other, wherever they are connected, leads to an even spread", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...servers), { minLength: 1, maxLength: 9 }), (start) => {
        const standing = [...start];
        let moves = 0;
        for (let isMoving = true; isMoving; ) {
          isMoving = false;
          for (let index = 0; index < standing.length; index++) {
            const choice = new ServerChoice(`${index}`);
            choice.setOthers(standing.filter((_, other) => other !== index).map(({ name }) => name));
            const better = choice.better(servers, standing[index]!.name);
            if (better === undefined) continue;
            standing[index] = better;
            isMoving = true;
            moves += 1;
          }
          expect(moves).toBeLessThanOrEqual(standing.length);
        }
        const counts = servers.map((server) => standing.filter((one) => one === server).length);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }),
    );
  });
});

/** Takes connections, and says nothing. */
async function silentServer(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe("a connector to several servers", () => {
  it("connects to the only one that is up, whichever it is, and takes no longer than with a single server", async () => {
    await using server = await startNatsServer();
    const silent = await silentServer();
    const here = `127.0.0.1:${server.port}`;
    for (const host of [`127.0.0.1:1,${here}`, `${here},127.0.0.1:1`, `[::1]:1,no.such.host.invalid,${here}`]) {
      expect(await connectError(optionsFor({ host, port: 1 }))).toBeUndefined();
    }
    noTimersAbove(natsConnectTimeoutMs - 1);
    expect(await connectError(optionsFor({ host: `${silent},${here}`, port: 1 }))).toBeUndefined();
  });

  it("reports for each why it has none", async () => {
    const error = await connectError(optionsFor({ host: "127.0.0.1:1,127.0.0.1:2", port: 1 }));
    expect(error?.code).toBe("nats_unavailable");
    expect(error?.message).toContain("none of 2 NATS servers accepted the connection");
    for (const port of [1, 2]) {
      expect(error?.detail).toContain(`127.0.0.1:${port}: Nothing listens there (ECONNREFUSED).`);
    }
  });

  it("says that it is refused if one refuses it and others are unavailable", async () => {
    await using server = await startNatsServer({ config: 'authorization { token: "right" }' });
    const host = `127.0.0.1:1,127.0.0.1:${server.port}`;
    const error = await connectError(optionsFor({ host, port: 1 }, { token: "wrong" }));
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.message).toContain("the server refused the token of option token");
  });

  it("goes to another one when its server dies, or announces its shutdown", async () => {
    await using one = await startNatsServer();
    await using other = await startNatsServer();
    const { connector } = testConnector();
    connector.configure(optionsFor({ host: `127.0.0.1:${one.port},127.0.0.1:${other.port}`, port: 1 }));
    await connector.ready();
    const own = [one, other].find(({ port }) => port === connector.server?.port)!;
    const left = own === one ? other : one;
    const connected = next(connector, "connected");
    await own.kill();
    await connected;
    expect(connector.server?.port).toBe(left.port);
    await own.restart();
    const moved = next(connector, "connected");
    // It takes no new connections, and ends those that it has.
    left.signal("SIGUSR2");
    await moved;
    expect(connector.server?.port).toBe(own.port);
  });

  it("moves to the given server, and stays if that one is unavailable", async () => {
    await using one = await startNatsServer();
    await using other = await startNatsServer();
    const { connector } = testConnector();
    const options = optionsFor({ host: `127.0.0.1:${one.port},127.0.0.1:${other.port}`, port: 1 });
    connector.configure(options);
    await connector.ready();
    const left = natsAddresses(options).find(({ name }) => name !== connector.server?.name)!;
    const before = connector.connection!;
    await connector.probe(left);
    expect(connector.connection).toBe(before);
    await connector.move(left);
    expect(connector.server).toEqual(left);
    expect(connector.connection).not.toBe(before);

    const home = [one, other].find(({ port }) => port !== left.port)!;
    await home.kill();
    const back = natsAddresses(options).find(({ port }) => port === home.port)!;
    await expect(connector.probe(back)).rejects.toMatchObject({ code: "nats_unavailable" });
    const present = connector.connection;
    await expect(connector.move(back)).rejects.toMatchObject({ code: "nats_unavailable" });
    expect(connector.connection).toBe(present);
    await connector.connection!.flush();
  });

  it("checks each server's certificate for the very name that was given", async () => {
    const authority = new CertificateAuthority();
    const tls = 'tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem" }';
    const serverFor = (name: string) => {
      const { cert, key } = authority.issue([name], { usage: "server" });
      return startNatsServer({ config: tls, files: { "cert.pem": cert, "key.pem": key } });
    };
    await using named = await serverFor("localhost");
    await using numbered = await serverFor("127.0.0.1");
    const secrets = secretsDirectory({ "ca.pem": authority.certificate });
    const attempt = (host: string) =>
      connectError(optionsFor({ host, port: 1 }, { tls_ca_path: join(secrets, "ca.pem") }), secrets);
    expect(await attempt(`localhost:${named.port}`)).toBeUndefined();
    expect(await attempt(`127.0.0.1:${numbered.port}`)).toBeUndefined();
    const swapped = await attempt(`127.0.0.1:${named.port},localhost:${numbered.port}`);
    expect(swapped?.code).toBe("nats_unauthorized");
    expect(swapped?.message).toContain("is for another host");
    expect(await attempt(`127.0.0.1:${named.port},127.0.0.1:${numbered.port}`)).toBeUndefined();
  });
});
