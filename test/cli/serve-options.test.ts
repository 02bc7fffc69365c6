/**
 * The flags of `hawser serve`: which go together. Messages name flags.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { checkServeOptions } from "../../src/nats/serve/serve-options.js";
import { type ServeArguments, serveOptionsOf } from "../../src/operating/cli/serve.js";
import { hawser } from "./support/hawser.js";

const pair = { "tls-cert": "a.crt", "tls-key": "a.key" };
const verified = { ...pair, "tls-sslmode": "verify-full" };

function refusal(given: ServeArguments): { code: string; message: string } {
  try {
    serveOptionsOf(given);
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error("it is not refused");
}

describe("flags that do not go together", () => {
  it.each<[ServeArguments, string, string]>([
    [{ "tls-cert": "a.crt" }, "invalid_argument", "--tls-cert needs --tls-key; give it, too"],
    [{ "tls-key": "a.key" }, "invalid_argument", "--tls-key needs --tls-cert; give it, too"],
    [{ "tls-sslmode": "require" }, "invalid_argument", "--tls-sslmode needs --tls-cert and --tls-key; give them, too"],
    [verified, "invalid_argument", "--tls-sslmode verify-full needs --tls-root-cert"],
    [
      { ...verified, "tls-root-cert": "ca.crt" },
      "invalid_argument",
      '--tls-root-cert "ca.crt" is not an absolute path; Postgres reads it',
    ],
    [{ ...pair, "tls-root-cert": "/ca.crt" }, "invalid_argument", "--tls-root-cert does not fit --tls-sslmode require"],
    [
      { "call-timeout": "2m" },
      "invalid_argument",
      "--call-timeout is 2m, more than --tune maxCallTimeoutMs, which is 1m; lower the first or raise the second",
    ],
    [{ "call-timeout": "5000" }, "invalid_argument", "write a unit: 5s"],
    [{ buffer: "134217728" }, "invalid_argument", "is not a size from 1MiB to 8GiB; write a unit: 128MiB"],
    [
      { listen: "10.1.2.3:5434" },
      "plaintext_refused",
      "set --tls-cert and --tls-key, use a loopback address, or set --allow-plaintext",
    ],
    [{ listen: "0.0.0.0:5434", ...pair }, "invalid_argument", "0.0.0.0:5434 means all addresses of this machine"],
    [{ listen: "[::]:5434", ...pair }, "invalid_argument", "name it with --advertise"],
    [{ listen: "[0:0::0]:5434", "allow-plaintext": true }, "invalid_argument", "name it with --advertise"],
    [{ monitor: "9464" }, "invalid_argument", '--monitor: "9464" is not an address; write host:port'],
    [{ listen: "5434" }, "invalid_argument", '--listen: "5434" is not an address'],
    [{ advertise: "db" }, "invalid_argument", '--advertise: "db" is not an address'],
    [{ advertise: "0.0.0.0:5434", ...pair }, "invalid_argument", "name it with --advertise"],
  ])("are refused: %j", (given, code, words) => {
    expect(refusal(given)).toMatchObject({ code, message: expect.stringContaining(words) });
  });

  it("are refused by the command as such", async () => {
    const { status, stderr } = await hawser(["serve", "--listen", "0.0.0.0:5434"]);
    expect([status, stderr]).toEqual([77, expect.stringContaining("or set --allow-plaintext")]);
    expect(stderr).not.toMatch(/allowPlaintext|\btls\.cert\b/);
  });
});

describe("flags that go together", () => {
  it.each<[ServeArguments]>([
    [{}],
    [pair],
    [{ ...verified, "tls-root-cert": "/ca.crt" }],
    [{ listen: "0.0.0.0:5434", advertise: "gateway.internal:5434", ...pair }],
    [{ listen: "10.1.2.3:5434", "allow-plaintext": true }],
  ])("are taken: %j", (given) => {
    expect(serveOptionsOf(given)).toMatchObject({
      tls: given["tls-cert"] === undefined ? undefined : pairOf(given),
    });
  });
});

function pairOf(given: ServeArguments) {
  return { cert: given["tls-cert"], key: given["tls-key"] };
}

describe("--secrets-dir", () => {
  it("has to exist, and is absolute from then on", () => {
    const directory = mkdtempSync(join(tmpdir(), "hawser-secrets-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const missing = join(directory, "missing");
    expect(refusal({ "secrets-dir": [directory, missing] })).toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(`--secrets-dir "${missing}" is not a directory`),
    });
    const options = serveOptionsOf({ "secrets-dir": [relative(process.cwd(), directory)] });
    expect(checkServeOptions(options).secretsDirectories).toEqual([directory]);
  });
});

describe("quantities and counts", () => {
  it("become the settings in milliseconds, bytes and numbers", () => {
    const given = { buffer: "128MiB", "stop-timeout": "20s", "outbox-retention": "1h", "subscriber-sessions": "8" };
    expect(serveOptionsOf(given)).toMatchObject({
      bufferBytes: 134_217_728,
      stopTimeoutMs: 20_000,
      outboxRetentionMs: 3_600_000,
      subscriberSessions: 8,
    });
  });
});

describe("--tune", () => {
  it("sets tuning settings by their names, the last value of each", () => {
    const tune = ["maxSessions=2", "maxSessions=2000", "savedBytes=4GiB", "takeoverBufferMs=0", "monitorDatabase=a=b"];
    expect(serveOptionsOf({ tune }).tuning).toEqual({
      maxSessions: 2000,
      savedBytes: 2 ** 32,
      takeoverBufferMs: 0,
      monitorDatabase: "a=b",
    });
  });

  it.each([
    ["maxSessions", '--tune "maxSessions" is not of the form NAME=VALUE'],
    ["=1", '--tune "=1" is not of the form NAME=VALUE'],
    ["maxSesions=1", 'there is no setting "maxSesions". Did you mean maxSessions?'],
    ["bufferBytes=1MiB", "bufferBytes is not a tuning setting; give it by its flag --buffer"],
    ["listen=a:1", "give it by its flag --listen"],
    ["maxSessions=0", '--tune maxSessions "0" is not a whole number from 1 to 100000'],
    ["savedBytes=1", '--tune savedBytes "1" is not a size from 0 to 1TiB; write a unit: 1B'],
    ["monitorDatabase=", '--tune monitorDatabase is "" and must be 1 to 128 bytes long'],
  ])("refuses %j", (text, words) => {
    expect(refusal({ tune: [text] })).toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(words),
    });
  });
});
