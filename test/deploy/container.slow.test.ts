/**
 * The image of deploy/Dockerfile without Docker: its commands make /app from the packed package, and namespaces are the
 * container. The command is process 1, a numeric user without capabilities, and everything but /tmp is read-only.
 *
 * Only for root, which may make namespaces.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
import { pack, run } from "../package/pack.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type Program, projectDirectory, startCommand } from "../support/program.js";

const dockerfile = readFileSync(join(projectDirectory, "deploy/Dockerfile"), "utf8").replaceAll("\\\n", "");
const [user = "", group = ""] = /^USER (\d+):(\d+)$/m.exec(dockerfile)?.slice(1) ?? [];
const mayMakeNamespaces =
  process.getuid?.() === 0 && spawnSync("unshare", ["--mount", "--pid", "--fork", "true"]).status === 0;

/** Makes the root of the container at $1 from the image at $2 and Node at $3, and becomes the command behind them. */
const enter = `set -eu
root=$1 image=$2 node=$3; shift 3
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir app dev etc node proc run tmp usr
for each in bin lib lib64; do ln -s "usr/$each" "$each"; done
mount --bind "$image/app" app
mount --bind "$image/etc" etc
mount --bind "$image/run" run
mount --bind "$node" node
mount --bind /usr usr
for each in app etc node run usr; do mount -o remount,bind,ro "$each"; done
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for each in null zero random urandom; do : > "dev/$each"; mount --bind "/dev/$each" "dev/$each"; done
mount -o remount,ro dev
mount -t tmpfs -o mode=1777,size=64m tmpfs tmp
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid ${user} --regid ${group} --clear-groups --no-new-privs --bounding-set -all \\
  --inh-caps -all "$@"
`;

/** Command line of the image: the link in /usr/local/bin leads to this file. */
const hawser = /\bln -s (\S+) \/usr\/local\/bin\/hawser$/m.exec(dockerfile)![1]!;

let directory: string;

/** Starts a command in a container of its own. */
function startContainer(args: readonly string[], databaseUrl: string): Program {
  const root = mkdtempSync(join(directory, "root-"));
  const nodeDirectory = dirname(dirname(process.execPath));
  const inside = ["sh", "-c", enter, "sh", root, join(directory, "image"), nodeDirectory, ...args];
  return startCommand("unshare", ["--mount", "--pid", "--fork", "--kill-child", ...inside], {
    cwd: directory,
    stdin: "ignore",
    // Nothing else of the environment: no HOME, and what Kubernetes gives.
    env: {
      ...Object.fromEntries(Object.keys(process.env).map((name) => [name, undefined])),
      PATH: "/node/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      NODE_ENV: "production",
      HAWSER_DATABASE_URL: databaseUrl,
    },
  });
}

/** Id outside of the container of its process 1. */
function processOne({ pid }: Program): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim());
}

describe.runIf(mayMakeNamespaces)("the image", () => {
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "hawser-image-"));
    chmodSync(directory, 0o755);
    const image = join(directory, "image");
    const app = join(image, "app");
    mkdirSync(join(image, "etc/hawser/tls"), { recursive: true });
    mkdirSync(join(image, "run/secrets/hawser"), { recursive: true });
    mkdirSync(app);
    const { tarball } = await pack(join(directory, "checkout"));
    copyFileSync(join(projectDirectory, "package-lock.json"), join(app, "package-lock.json"));
    const commands = /^RUN (.*npm ci.*)$/m.exec(dockerfile)![1]!;
    await run("sh", ["-c", commands.replace("/tmp/package.tgz", tarball)], app);
    // As a secret is mounted: root's, readable for the group.
    const { cert, key } = new CertificateAuthority().issue(["127.0.0.1"]);
    for (const [name, text] of Object.entries({ "tls.crt": cert, "tls.key": key })) {
      const file = join(image, "etc/hawser/tls", name);
      writeFileSync(file, text, { mode: 0o440 });
      chownSync(file, 0, Number(group));
    }
  }, 600_000);
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it("cannot write outside of /tmp", async () => {
    const tries = "id -u; for each in / /app /etc /dev /tmp; do touch $each/x 2>/dev/null && echo $each; done; true";
    const { stdout } = await startContainer(["sh", "-c", tries], "").ended;
    expect(stdout.trim().split("\n")).toEqual([user, "/tmp"]);
  });

  it("runs init several times at once, serves, and ends in good order at SIGTERM as process 1", async () => {
    await using database = await testDatabase({ migrated: false });
    const inits = [1, 2, 3].map(() => startContainer([hawser, "init", "--json"], database.url).ended);
    for (const { status, stderr } of await Promise.all(inits)) expect(status, stderr).toBe(0);
    await using bridge = await login(database.url, "IN ROLE hawser_bridge");
    const { hostname, port } = new URL(testNatsUrl());
    await onServer(
      database.url,
      `SELECT hawser.set_nats_server('${JSON.stringify({ host: hostname, port: Number(port) })}')`,
    );

    const tls = ["--tls-cert", "/etc/hawser/tls/tls.crt", "--tls-key", "/etc/hawser/tls/tls.key"];
    const addresses = ["--listen", "127.0.0.1:0", "--monitor", "127.0.0.1:0"];
    // `env` becomes the command.
    const args = [
      "env",
      "OTEL_TRACES_EXPORTER=otlp",
      hawser,
      "serve",
      ...addresses,
      ...tls,
      "--secrets-dir",
      "/run/secrets/hawser",
    ];
    const program = startContainer(args, bridge.url);
    const { monitorAddress } = JSON.parse(await program.firstLine) as { monitorAddress: string };
    await eventually("it is ready", async () => (await fetch(`http://${monitorAddress}/readyz`)).ok);
    expect((await fetch(`http://${monitorAddress}/healthz`)).status).toBe(200);

    const pid = processOne(program);
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    expect(status).toMatch(/^NSpid:\t\d+(\t\d+)*\t1$/m);
    expect(status).toMatch(new RegExp(`^Uid:\t${[user, user, user, user].join("\t")}$`, "m"));
    expect(status).toMatch(/^CapEff:\t0+$/m);
    const mounts = readFileSync(`/proc/${pid}/mounts`, "utf8").trim().split("\n");
    const writable = mounts.map((line) => line.split(" ")).filter(([, , , options]) => !/\bro\b/.test(options!));
    const devices = /^\/dev\/(null|zero|u?random)$/;
    expect(writable.map(([, place]) => place).filter((place) => !devices.test(place!))).toEqual(["/proc", "/tmp"]);

    // A call from SQL through TLS to NATS and back.
    expect(await rowsOf(database.url, "SELECT nats_flush() IS NOT NULL AS answered")).toHaveLength(1);
    process.kill(pid, "SIGTERM");
    const end = await program.ended;
    expect({ status: end.status, signal: end.signal }, end.stderr).toEqual({ status: 0, signal: null });
    expect(end.stderr).toContain('"exporting by OpenTelemetry"');
    expect(end.stderr).toContain('"has stopped"');
    expect(end.stderr).not.toMatch(/EROFS|EACCES/);
    expect(await rowsOf(database.url, "SELECT FROM hawser_bridge_data.gateways")).toEqual([]);
  });
});
