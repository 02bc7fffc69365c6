import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { closeSync, constants, mkdirSync, openSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import type { HawserError } from "../../src/foundation/errors/index.js";
import type { Clock } from "../../src/foundation/runtime/index.js";
import { TlsCredentials, type TlsOptions } from "../../src/foundation/tls/index.js";
import { tlsReloadMs, tlsReloadWaitMs } from "../../src/foundation/tls/tls-credentials.js";
import { CertificateAuthority, type Issued } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";
import { temporaryDirectory } from "../support/temporary.js";
import { dialTest, Inbox, identity, TestListener } from "./pair.js";

const authority = new CertificateAuthority();
const nextAuthority = new CertificateAuthority("The next authority");
const local = ["localhost", "127.0.0.1"];
const ours = authority.issue(local);

describe("the option tls", () => {
  it.each<[string, Partial<Record<keyof TlsOptions | "certificate", unknown>>, RegExp]>([
    ["no key", { key: undefined }, /tls needs both cert and key/],
    [
      "an unknown name",
      { certificate: "x" },
      /"certificate" is not an option of tls; the options are cert, key, passphrase, ca/,
    ],
    ["a number for a certificate", { cert: 7 }, /tls\.cert must be PEM, as text or bytes, or the path of a file/],
    ["an empty text", { ca: "" }, /tls\.ca must be PEM/],
    ["mutual without ca", { mutual: true, ca: undefined }, /tls\.mutual needs tls\.ca/],
    ["another verify", { verify: "none" }, /tls\.verify must be "full" or "ca"/],
    ["serverName with verify: ca", { verify: "ca", serverName: "a" }, /leave one of the two out/],
    ["a file that is missing", { cert: "/nowhere/tls.crt" }, /tls\.cert \/nowhere\/tls\.crt cannot be read: ENOENT/],
    ["a device", { key: "/dev/zero" }, /tls\.key \/dev\/zero cannot be read: it is not a regular file/],
    ["a key for a certificate", { cert: ours.key }, /tls\.cert holds no certificate/],
    ["a certificate for a key", { key: ours.cert }, /tls\.key cannot be read as a private key/],
    ["a damaged certificate", { ca: ours.cert.replace(/\n.{8}/, "\nAAAAAAAA") }, /tls\.ca holds a damaged certificate/],
    ["the key of another certificate", { key: authority.issue(local).key }, /tls\.key is not the key of tls\.cert/],
    ["an expired certificate", authority.issue(local, { fromDays: -2, untilDays: -1 }), /tls\.cert has expired on /],
    ["one for later", authority.issue(local, { fromDays: 1, untilDays: 2 }), /tls\.cert is not valid before .*clock/],
    ["an encrypted key alone", authority.issue(local, { passphrase: "open" }), /is encrypted; give tls\.passphrase/],
    [
      "the wrong passphrase",
      { ...authority.issue(local, { passphrase: "open" }), passphrase: "sesame" },
      /cannot be read as a private key with tls\.passphrase/,
    ],
  ])("with %s is refused, and no secret is said", (_, changes, message) => {
    const options = { ...ours, ca: authority.certificate, ...changes } as TlsOptions;
    const refused = () => new TlsCredentials(options);
    expect(refused).toThrow(
      expect.objectContaining({ code: "invalid_argument", message: expect.stringMatching(message) }),
    );
    expect(refused).not.toThrow(/sesame|PRIVATE KEY/);
  });

  it("refuses a key that Node's TLS does not accept", () => {
    const { privateKey } = generateKeyPairSync("x25519");
    const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
    expect(() => new TlsCredentials({ ...ours, key })).toThrow(/tls\.key is not the key of tls\.cert/);
  });

  it("accepts text, bytes, files and an encrypted key", async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, "tls.crt"), ours.cert);
    writeFileSync(join(directory, "tls.key"), ours.key);
    const encrypted = authority.issue(local, { passphrase: "open" });
    for (const options of [
      ours,
      { cert: Buffer.from(ours.cert), key: new Uint8Array(Buffer.from(ours.key)) },
      { cert: join(directory, "tls.crt"), key: join(directory, "tls.key") },
      { ...encrypted, passphrase: "open" },
    ]) {
      const tls = new TlsCredentials({ ...options, ca: authority.certificate });
      await using listener = await TestListener.start({ tls });
      (await dialTest(listener.address, { tls })).connection.destroy();
    }
  });
});

/** Files of a certificate, and who reads them. */
class Files {
  readonly directory = temporaryDirectory();
  readonly told = new Inbox<"reloaded" | HawserError>();

  constructor(issued: Issued = ours, ca = authority.certificate) {
    this.write(issued, ca);
  }

  path(name: "tls.crt" | "tls.key" | "ca.crt"): string {
    return join(this.directory, name);
  }

  write({ cert, key }: Issued, ca = authority.certificate): void {
    writeFileSync(this.path("tls.crt"), cert);
    writeFileSync(this.path("tls.key"), key);
    writeFileSync(this.path("ca.crt"), ca);
  }

  /** Makes credentials that wait for their files without a limit by default: the machine may be slow. */
  credentials(options: Partial<TlsOptions> = {}, clock: Clock = new ManualClock()): TlsCredentials {
    const files = { cert: this.path("tls.crt"), key: this.path("tls.key"), ca: this.path("ca.crt") };
    const credentials = new TlsCredentials({ ...files, ...options }, clock);
    onTestFinished(
      credentials.subscribe({
        onReloaded: () => this.told.push("reloaded"),
        onReloadFailed: (error) => this.told.push(error),
      }),
    );
    return credentials;
  }
}

/** A dialler that trusts both authorities and says which one the listener's certificate came from. */
async function authorityShownBy(address: string, shows: Issued = ours): Promise<string> {
  for (const [name, ca] of [
    ["first", authority.certificate],
    ["next", nextAuthority.certificate],
  ] as const) {
    const tls = new TlsCredentials({ ...shows, ca });
    const outcome = await dialTest(address, { tls }).then(
      ({ connection }) => connection.destroy(),
      (error: HawserError) => error.code,
    );
    if (outcome === undefined) return name;
  }
  return "none";
}

describe("renewed certificates", () => {
  it("are used for new connections after the next reload, and do not affect others", async () => {
    const files = new Files();
    const clock = new ManualClock();
    await using listener = await TestListener.start({ tls: files.credentials(), clock });
    const before = await dialTest(listener.address, {
      tls: new TlsCredentials({ ...ours, ca: authority.certificate }),
    });
    const { events } = await listener.accepted.next();
    expect(await authorityShownBy(listener.address)).toBe("first");

    files.write(nextAuthority.issue(local), nextAuthority.certificate);
    clock.advance(tlsReloadMs);
    expect(await files.told.next()).toBe("reloaded");
    expect(await authorityShownBy(listener.address)).toBe("next");
    before.connection.writeGoLive(identity.epoch);
    expect(await events.next()).toEqual({ kind: "goLive" });
    before.connection.destroy();
  });

  it("are noticed behind switched symbolic links, as with Kubernetes", async () => {
    const files = new Files();
    const { directory } = files;
    const version = (name: string, issued: Issued): void => {
      mkdirSync(join(directory, name));
      writeFileSync(join(directory, name, "tls.crt"), issued.cert);
      writeFileSync(join(directory, name, "tls.key"), issued.key);
      symlinkSync(name, join(directory, "..data_tmp"));
      renameSync(join(directory, "..data_tmp"), join(directory, "..data"));
    };
    version("v1", ours);
    for (const name of ["tls.crt", "tls.key"]) {
      rmSync(join(directory, name));
      symlinkSync(join("..data", name), join(directory, name));
    }
    const tls = files.credentials();
    const clock = new ManualClock();
    await using listener = await TestListener.start({ tls, clock });
    for (const next of ["v2", "v3"]) {
      version(next, (next === "v2" ? nextAuthority : authority).issue(local));
      clock.advance(tlsReloadMs);
      expect(await files.told.next()).toBe("reloaded");
      expect(await authorityShownBy(listener.address)).toBe(next === "v2" ? "next" : "first");
      await settledWatch(clock);
    }
  });

  it("are noticed by the next dial when another file is renamed over them", async () => {
    const files = new Files();
    await using listener = await TestListener.start({
      tls: new TlsCredentials({ ...ours, ca: nextAuthority.certificate, mutual: true }),
    });
    const tls = files.credentials();
    await expect(dialTest(listener.address, { tls })).rejects.toThrow(/certificate of the dialler/);
    const next = nextAuthority.issue(local);
    writeFileSync(`${files.path("tls.crt")}.new`, next.cert);
    writeFileSync(`${files.path("tls.key")}.new`, next.key);
    renameSync(`${files.path("tls.crt")}.new`, files.path("tls.crt"));
    renameSync(`${files.path("tls.key")}.new`, files.path("tls.key"));
    (await dialTest(listener.address, { tls })).connection.destroy();
  });

  it("change which diallers mutual TLS accepts", async () => {
    const files = new Files();
    const clock = new ManualClock();
    await using listener = await TestListener.start({ tls: files.credentials({ mutual: true }), clock });
    const next = nextAuthority.issue(local);
    expect(await authorityShownBy(listener.address, next)).toBe("none");
    files.write(ours, authority.certificate + nextAuthority.certificate);
    clock.advance(tlsReloadMs);
    expect(await files.told.next()).toBe("reloaded");
    expect(await authorityShownBy(listener.address, next)).toBe("first");
    expect(await authorityShownBy(listener.address, ours)).toBe("first");
  });

  it("are not used while they are half written, which is reported once", async () => {
    const files = new Files();
    const tls = files.credentials();
    const before = tls.current;
    const next = nextAuthority.issue(local);
    const states: readonly [() => void, RegExp][] = [
      [() => writeFileSync(files.path("tls.crt"), next.cert), /tls\.key .*tls\.key is not the key of tls\.cert /],
      [() => writeFileSync(files.path("tls.crt"), next.cert.slice(0, 80)), /tls\.crt holds no certificate/],
      [() => rmSync(files.path("tls.crt")), /tls\.cert .* cannot be read: ENOENT/],
    ];
    for (const [change, message] of states) {
      change();
      for (let reading = 0; reading < 3; reading++) await tls.refresh();
      expect(await files.told.next()).toMatchObject({
        code: "invalid_argument",
        message: expect.stringMatching(message),
      });
      expect(tls.current).toBe(before);
    }
    expect(files.told.all).toHaveLength(states.length);
    files.write(next);
    await tls.refresh();
    expect(await files.told.next()).toBe("reloaded");
    expect(tls.current).not.toBe(before);
  });

  it("that become invalid in the same way again are reported again", async () => {
    const files = new Files();
    const tls = files.credentials();
    for (const next of [ours, nextAuthority.issue(local)]) {
      rmSync(files.path("tls.key"));
      for (let reading = 0; reading < 2; reading++) await tls.refresh();
      expect(await files.told.next()).toMatchObject({ message: expect.stringContaining("ENOENT") });
      files.write(next);
      await tls.refresh();
    }
    expect(files.told.all.map((told) => (told === "reloaded" ? told : told.code))).toEqual([
      "invalid_argument",
      "invalid_argument",
      "reloaded",
    ]);
  });

  it("that were replaced by pipes are reported, and the old ones stay in use", async () => {
    const files = new Files();
    const tls = files.credentials();
    await using listener = await TestListener.start({
      tls: new TlsCredentials({ ...ours, ca: authority.certificate }),
    });
    rmSync(files.path("tls.key"));
    execFileSync("mkfifo", [files.path("tls.key")]);
    (await dialTest(listener.address, { tls })).connection.destroy();
    expect(await files.told.next()).toMatchObject({ message: expect.stringContaining("not a regular file") });
  });

  it("on a file system that does not answer block no dial and no listener, and are used when it does", async () => {
    const files = new Files();
    const clock = new ManualClock();
    const tls = files.credentials({}, clock);
    const others = new TlsCredentials({ ...ours, ca: authority.certificate });
    const answering = await FileSystemThatHangs.start(files.directory);
    onTestFinished(() => answering.end());
    files.write(nextAuthority.issue(local), authority.certificate + nextAuthority.certificate);
    const starting = TestListener.start({ tls });
    await eventually("the files are waited for", () => clock.timers > 0);
    clock.advance(tlsReloadWaitMs);
    await using listener = await starting;
    // Waited for once, and not by each: the clock stands still.
    for (let dials = 0; dials < 4; dials++) {
      const { connection } = await dialTest(listener.address, { tls: dials % 2 === 0 ? tls : others });
      connection.destroy();
    }
    expect(files.told.all).toHaveLength(1);
    expect(await files.told.next()).toMatchObject({
      message: expect.stringMatching(
        /reading tls\.cert .*tls\.crt, tls\.key .*, tls\.ca .* did not finish within 500 ms/,
      ),
    });

    await answering.end();
    expect(await files.told.next()).toBe("reloaded");
    expect(await authorityShownBy(listener.address)).toBe("next");
  });

  it("are not loaded again without a change", async () => {
    const files = new Files();
    const tls = files.credentials();
    files.write(ours);
    await tls.refresh();
    expect(files.told.all).toEqual([]);
  });

  it("that become valid later are used from then on", async () => {
    const files = new Files();
    const tls = files.credentials();
    files.write(authority.issue(local, { fromDays: 1, untilDays: 2 }));
    await tls.refresh();
    expect(await files.told.next()).toMatchObject({ message: expect.stringContaining("is not valid before") });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 1.5 * 86_400_000 });
    onTestFinished(() => void vi.useRealTimers());
    await tls.refresh();
    expect(await files.told.next()).toBe("reloaded");
  });

  it("are not watched any more once the listener has closed", async () => {
    const files = new Files();
    const clock = new ManualClock();
    const listener = await TestListener.start({ tls: files.credentials(), clock });
    await listener.close(true);
    files.write(nextAuthority.issue(local));
    clock.advance(10 * tlsReloadMs);
    const other = files.credentials();
    await other.refresh();
    expect(files.told.all).toEqual([]);
  });
});

/**
 * All threads that Node reads files with wait, as they do for a server of files that has gone: each opens a pipe that
 * nobody writes to.
 */
class FileSystemThatHangs {
  #writer: number | undefined;

  readonly #pipe: string;
  readonly #opening: readonly Promise<{ close(): Promise<void> }>[];

  private constructor(pipe: string, opening: readonly Promise<{ close(): Promise<void> }>[]) {
    this.#pipe = pipe;
    this.#opening = opening;
  }

  static async start(directory: string): Promise<FileSystemThatHangs> {
    const pipe = join(directory, "pipe");
    execFileSync("mkfifo", [pipe]);
    const threads = Number(process.env["UV_THREADPOOL_SIZE"] ?? 4);
    return new FileSystemThatHangs(
      pipe,
      Array.from({ length: threads }, () => open(pipe, "r")),
    );
  }

  /** Lets them go on. */
  async end(): Promise<void> {
    if (this.#writer !== undefined) return;
    // Without a reader yet there would be nobody to let go.
    await eventually("a thread waits for a writer", () => {
      try {
        this.#writer = openSync(this.#pipe, constants.O_WRONLY | constants.O_NONBLOCK);
        return true;
      } catch {
        return false;
      }
    });
    for (const reader of await Promise.all(this.#opening)) await reader.close();
    closeSync(this.#writer!);
  }
}

/** Resolves when the watch has set its next timer, so that moving the clock reaches it. */
async function settledWatch(clock: ManualClock): Promise<void> {
  await eventually("the files will be read again", () => clock.timers > 0);
}
