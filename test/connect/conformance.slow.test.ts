/**
 * Connect's conformance suite: its client, which is written in Go, calls by HTTP a server that hands every call on over
 * peers, or over NATS (`programs/conformance-server.ts`). Only where Go is.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cacheDirectory } from "../../src/development/dev/index.js";
import { nodeCommand } from "../support/built-programs.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory, startCommand } from "../support/program.js";

const suite = "connectrpc.com/conformance";
const version = "v1.0.7";
const hasGo = spawnSync("go", ["version"]).status === 0;
const binDirectory = join(cacheDirectory(), "connectconformance", `${version}-${process.platform}-${process.arch}`);
const program = join(binDirectory, "connectconformance");

/** Unary calls of the Connect protocol; compression and GET are of HTTP. */
const config = `
features:
  versions: [HTTP_VERSION_1]
  protocols: [PROTOCOL_CONNECT]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY]
  stream_types: [STREAM_TYPE_UNARY]
  supports_tls: false
  supports_h2c: false
  supports_connect_get: false
  supports_message_receive_limit: true
`;

const directory = mkdtempSync(join(tmpdir(), "hawser-conformance-"));
const image = join(directory, "image.binpb");
const configFile = join(directory, "config.yaml");

function run(command: string, args: readonly string[], env: Record<string, string> = {}): string {
  const options = { cwd: projectDirectory, encoding: "utf8", env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr, error } = spawnSync(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed: ${stderr || error?.message}`);
  return stdout;
}

beforeAll(() => {
  if (!hasGo) return;
  if (!existsSync(program)) {
    mkdirSync(binDirectory, { recursive: true });
    run("go", ["install", `${suite}/cmd/connectconformance@${version}`], { GOBIN: binDirectory });
  }
  const { Dir: source } = JSON.parse(run("go", ["mod", "download", "-json", `${suite}@${version}`])) as { Dir: string };
  run(process.execPath, ["node_modules/@bufbuild/buf/bin/buf", "build", join(source, "proto"), "-o", image]);
  writeFileSync(configFile, config);
}, 600_000);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.runIf(hasGo)("the suite's unary calls", () => {
  it.each(["NATS", "peers"])("pass over %s", async (carrier) => {
    await using database = await testDatabase({ nats: false });
    const server = nodeCommand("test/connect/programs/conformance-server.ts");
    const url = carrier === "NATS" ? testNatsUrl() : database.url;
    const args = ["--mode", "server", "--conf", configFile, "--max-servers", "1", "--", ...server, carrier, image];
    const { stdout, stderr } = await startCommand(program, args, { stdin: "ignore", env: { SERVER_URL: url } }).ended;
    const [, passed, failed] = /^(\d+) passed, (\d+) failed/m.exec(stdout) ?? [];
    expect(failed, `${stdout}\n${stderr}`).toBe("0");
    expect(Number(passed)).toBeGreaterThan(50);
  });
});
