import { X509Certificate } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { version } from "../../src/foundation/runtime/index.js";
import { Peer, type PeerOptions } from "../../src/jobs-and-peers/peer/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { temporaryDirectory } from "../support/temporary.js";
import { elsewhere } from "../transport/elsewhere.js";
import { cuttablePeer } from "./support/cuttable.js";
import { type PeerWorld, peerWorld } from "./support/world.js";

const authority = new CertificateAuthority();
const otherAuthority = new CertificateAuthority("Another authority");
const local = ["localhost", "127.0.0.1"];

/** The options of one peer of the mesh, with a certificate of its own. */
function tls(options: Partial<NonNullable<PeerOptions["tls"]>> = {}): {
  readonly tls: NonNullable<PeerOptions["tls"]>;
} {
  return { tls: { ...authority.issue(local), ca: authority.certificate, ...options } };
}

describe("peers over TLS", () => {
  let world: PeerWorld;
  beforeAll(async () => {
    world = await peerWorld({ nats: false, keepsConnections: true });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it.each([
    ["TLS", false],
    ["mutual TLS", true],
  ])("over %s deliver live, to who was away, after a cut, and replies", async (_, mutual) => {
    const [from, to] = mutual ? ["ma", "mb"] : ["ta", "tb"];
    await using listener = await cuttablePeer(world, `${to}-1`, tls({ mutual }));
    const { peer } = listener;
    const sender = await world.started(`${from}-1`, tls({ mutual }));
    await peer.record(async (message) => {
      if (message.attempt === 1 && Buffer.from(message.payload).toString() === "1") await message.reply("an answer");
    });
    expect(await sender.send(to, "1")).toMatchObject({ outcome: "delivered" });
    await sender.received.find(({ text }) => text === "an answer");

    await peer.stop();
    expect(await sender.send(to, "2")).toMatchObject({ outcome: "stored" });
    const away = sender.statuses.all.length;
    await peer.record();
    await peer.received.find(({ text }) => text === "2");
    await sender.saw("peer_connected", () => true, away);

    const before = sender.statuses.all.length;
    listener.cut();
    await sender.saw("peer_disconnected", () => true, before);
    await sender.saw("peer_connected", () => true, before);
    const receipts = Array.from({ length: 50 }, (_, index) => sender.send(to, String(index + 3)));
    await Promise.all(receipts);
    await peer.received.find(({ text }) => text === "52");
    expect(peer.texts).toEqual(Array.from({ length: 52 }, (_, index) => String(index + 1)));
    await sender.stop();
  });

  it.skipIf(elsewhere === undefined)("need no allowPlaintext beyond loopback", async () => {
    const beyond = (): Partial<PeerOptions> => ({
      listen: `${elsewhere}:0`,
      tls: { ...authority.issue([elsewhere as string]), ca: authority.certificate },
    });
    const listener = await world.started("na-1", beyond());
    const sender = await world.started("nb-1", beyond());
    expect(await sender.send("na", "hello")).toMatchObject({ outcome: "delivered" });
    expect(listener.address).toMatch(`${elsewhere}:`);
    await Promise.all([sender.stop(), listener.stop()]);
  });

  it.each<[string, Partial<PeerOptions>, Partial<PeerOptions>, string, RegExp, string]>([
    ["a sender without TLS", tls(), {}, "tls_mismatch", /accepts only TLS/, "tls_mismatch"],
    ["a listener without TLS", {}, tls(), "tls_mismatch", /does not use TLS/, "tls_mismatch"],
    [
      "a sender whom mutual TLS does not let in",
      tls({ mutual: true }),
      tls(otherAuthority.issue(local)),
      "tls_failed",
      /certificate of the dialler .* not trusted/,
      "tls_failed",
    ],
    [
      "a listener whom the sender does not trust",
      tls(otherAuthority.issue(local)),
      tls(),
      "tls_failed",
      /certificate of 127\.0\.0\.1:\d+ .* not trusted/,
      "connection_lost",
    ],
  ])("store for each other and say why: %s", async (what, listens, dials, code, message, refusal) => {
    const id = `${what.length}`;
    const listener = await world.started(`l${id}-1`, listens);
    const sender = await world.started(`s${id}-1`, dials);
    expect(await sender.send(`l${id}`, "kept")).toMatchObject({ outcome: "stored" });
    const status = await sender.saw("sender_send_error");
    expect(status.error.code).toBe(code);
    expect(status.message).toMatch(message);
    expect((await listener.saw("handshake_refused")).code).toBe(refusal);
    // It comes by way of the store.
    await listener.received.find(({ text }) => text === "kept");
    await Promise.all([sender.stop(), listener.stop()]);
  });

  it("renew their certificates while they run, and keep the old ones in use until the new are whole", async () => {
    const directory = temporaryDirectory();
    const path = (name: string): string => join(directory, name);
    const write = ({ cert, key }: { cert: string; key: string }, ca: string): void => {
      for (const [name, text] of [
        ["tls.crt", cert],
        ["tls.key", key],
        ["ca.crt", ca],
      ] as const) {
        writeFileSync(path(`${name}.new`), text);
        renameSync(path(`${name}.new`), path(name));
      }
    };
    write(authority.issue(local), authority.certificate);
    const files = { tls: { cert: path("tls.crt"), key: path("tls.key"), ca: path("ca.crt"), mutual: true } };
    await using one = await cuttablePeer(world, "ra-1", files);
    await using other = await cuttablePeer(world, "rb-1", files);
    for (const { peer } of [one, other]) await peer.record();
    const exchange = async (text: string): Promise<void> => {
      expect(await one.peer.send("rb", text)).toMatchObject({ outcome: "delivered" });
      expect(await other.peer.send("ra", text)).toMatchObject({ outcome: "delivered" });
    };
    /** Ends all connections: each side reads its files before it dials again. */
    const reconnect = async (): Promise<void> => {
      const connected = [one, other].map(({ peer }) =>
        peer.saw("peer_connected", () => true, peer.statuses.all.length),
      );
      for (const { cut } of [one, other]) cut();
      await Promise.all(connected);
    };
    await exchange("1");

    writeFileSync(path("tls.key"), authority.issue(local).key);
    await reconnect();
    for (const { peer } of [one, other]) {
      // Before that one may say that reading the files takes long.
      const told = /the previous certificates stay in use: tls\.key .* is not the key of tls\.cert/;
      const failed = await peer.saw("tls_reload_failed", ({ message }) => told.test(message));
      expect(failed).toMatchObject({ error: { code: "invalid_argument" } });
    }
    await exchange("2");

    // Another authority: both sides have to have read it before they can meet again.
    write(otherAuthority.issue(local), otherAuthority.certificate);
    await reconnect();
    await exchange("3");
    for (const { peer } of [one, other]) expect(peer.texts).toEqual(["1", "2", "3"]);
  });

  slowIt(
    "say their version and when their certificate ends, also of a renewed one that could not be written at first",
    async () => {
      const directory = temporaryDirectory();
      const path = (name: string): string => join(directory, name);
      const renew = (untilDays: number): Date => {
        const { cert, key } = authority.issue(local, { untilDays });
        writeFileSync(path("tls.crt"), cert);
        writeFileSync(path("tls.key"), key);
        return new Date(new X509Certificate(cert).validTo);
      };
      const said = () =>
        world.query<{ version: string; end: Date }>(
          "SELECT version, certificate_ends_at AS end FROM hawser_peer_data.peers WHERE name = 'ca-1'",
        );
      const first = renew(1);
      const peer = await world.started("ca-1", tls({ cert: path("tls.crt"), key: path("tls.key") }));
      expect(await said()).toEqual([{ version, end: first }]);

      await world.query(`
      CREATE SEQUENCE public.tries;
      CREATE FUNCTION public.refuse_first() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF nextval('public.tries') = 1 THEN RAISE EXCEPTION 'not yet'; END IF;
          RETURN NEW;
        END
      $$;
      GRANT ALL ON SEQUENCE public.tries TO PUBLIC;
      CREATE TRIGGER refuse_first BEFORE UPDATE ON hawser_peer_data.peers FOR EACH ROW WHEN (NEW.name = 'ca-1') EXECUTE FUNCTION public.refuse_first()`);
      const second = renew(2);
      await eventually("the write is refused", async () => {
        const [tries] = await world.query<{ is_called: boolean }>("SELECT is_called FROM public.tries");
        return tries!.is_called;
      });
      // Without a new session.
      await eventually("the new end is there", async () => (await said())[0]!.end.getTime() === second.getTime());
      await peer.stop();
      await world.query("DROP FUNCTION public.refuse_first CASCADE; DROP SEQUENCE public.tries");
      const plain = await world.started("ca-1");
      expect(await said()).toEqual([{ version, end: null }]);
      await plain.stop();
    },
  );

  it("start with a certificate whose end cannot be read", async () => {
    const { cert, key } = authority.issue(local);
    const bytes = Buffer.from(cert.replaceAll(/-----[^-]+-----|\s/g, ""), "base64");
    // The second time of the certificate, with a month 13.
    const end = bytes.indexOf("\u0017\u000d", bytes.indexOf("\u0017\u000d") + 2, "latin1");
    bytes.write("301325000000Z", end + 2, "latin1");
    const odd = `-----BEGIN CERTIFICATE-----\n${bytes.toString("base64").replaceAll(/.{64}(?=.)/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
    expect(new X509Certificate(odd).validTo).toBe("Bad time value");
    const peer = await world.started("odd-1", tls({ cert: odd, key }));
    expect(
      await world.query("SELECT certificate_ends_at AS end FROM hawser_peer_data.peers WHERE name = 'odd-1'"),
    ).toEqual([{ end: null }]);
    await peer.stop();
  });

  it("refuse options that contradict each other, or a certificate that cannot be used, when they are made", () => {
    const make = (options: Partial<PeerOptions>) => () =>
      new Peer({ name: "x-1", topic: "x", listen: "127.0.0.1:0", databaseUrl: world.url, ...options });
    const invalid = (message: RegExp) =>
      expect.objectContaining({
        name: "HawserError",
        code: "invalid_argument",
        message: expect.stringMatching(message),
      });
    expect(make({ ...tls(), allowPlaintext: true })).toThrow(invalid(/allowPlaintext true together with tls/));
    expect(make(tls({ key: authority.issue(local).key }))).toThrow(invalid(/tls\.key is not the key of tls\.cert/));
    expect(make(tls({ cert: "/nowhere/tls.crt" }))).toThrow(invalid(/tls\.cert \/nowhere\/tls\.crt cannot be read/));
    expect(make({ tls: true as unknown as NonNullable<PeerOptions["tls"]> })).toThrow(
      invalid(/tls must be an object with cert and key/),
    );
  });
});
