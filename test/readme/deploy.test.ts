/**
 * The files of deploy and examples/deploy, and the flags that pages for operators name, fit the program.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv } from "ajv";
import { load } from "js-yaml";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { type Metric, peerMetrics, serveMetrics } from "../../generated/ts/metrics/metrics.js";
import { serveSettingsDefaults } from "../../generated/ts/settings/nats.js";
import { quantityOf } from "../../src/operating/cli/quantities.js";
import { commands } from "../../src/operating/cli/run.js";
import { testDatabase } from "../support/database.js";
import { projectDirectory } from "../support/program.js";

const read = (path: string): string => readFileSync(join(projectDirectory, path), "utf8");

/** Flags of each command. */
const flags = new Map(
  await Promise.all(
    Object.entries(commands).map(async ([name, { load }]) => {
      const args = Object.entries((await load()).command.args);
      return [name, args.flatMap(([flag, { type }]) => (type === "positional" ? [] : [flag]))] as const;
    }),
  ),
);

/** Part of a command line that the program does not know; the command line is given without `hawser`. */
function unknownIn([command = "", ...words]: readonly string[]): string[] {
  const known = flags.get(command);
  if (known === undefined) return [`the command ${command}`];
  return words.filter((word) => word.startsWith("--") && !known.includes(/^--([a-z-]+)/.exec(word)?.[1] ?? ""));
}

/** The milliseconds that `hawser serve` takes to stop, by its command line. */
function stopTimeoutIn(words: readonly string[]): number {
  const flag = "--stop-timeout";
  return quantityOf("duration", flag, words[words.indexOf(flag) + 1], { min: 0, max: 3_600_000 })!;
}

describe("the systemd unit", () => {
  const unit = read("examples/deploy/hawser.service");
  const settingOf = (key: string): string => new RegExp(`^${key}=(.*)$`, "m").exec(unit)![1]!;

  it("starts `hawser serve` with flags that it has, and waits longer for its end than that takes", () => {
    const [program, ...words] = settingOf("ExecStart").split(" ");
    expect(program).toMatch(/\/hawser$/);
    expect(unknownIn(words)).toEqual([]);
    const deadlineMs = stopTimeoutIn(words);
    expect(Number(settingOf("TimeoutStopSec")) * 1000).toBeGreaterThan(deadlineMs + 10_000);
  });

  it("has a file for its environment, with a variable that is read", () => {
    expect(settingOf("EnvironmentFile")).toBe("/etc/hawser/hawser.env");
    const variables = read("examples/deploy/hawser.env").match(/^\w+(?==)/gm);
    expect(variables).toEqual(["HAWSER_DATABASE_URL"]);
  });
});

/** Properties of a compose file that the test reads. */
interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
}

interface Service {
  readonly image: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly volumes?: readonly string[];
  readonly network_mode?: string;
  readonly stop_grace_period?: string;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
}

describe("the containers", () => {
  const compose = load(read("examples/deploy/compose.yaml")) as Compose;
  const services = Object.entries(compose.services);

  it("run hawser with flags that it has, and wait longer for its end than that takes", () => {
    const ours = services.filter(([, { image }]) => image === "hawser");
    expect(ours.map(([, { command }]) => command?.[0])).toEqual(["init", "serve"]);
    expect(ours.flatMap(([, { command }]) => unknownIn(command ?? []))).toEqual([]);
    const { command, stop_grace_period } = compose.services["hawser"]!;
    expect(Number(stop_grace_period!.replace("s", "")) * 1000).toBeGreaterThan(stopTimeoutIn(command!) + 10_000);
  });

  it("name services, volumes and files that there are", () => {
    const names = services.map(([name]) => name);
    for (const [, { depends_on = {}, network_mode, volumes = [] }] of services) {
      expect(names).toEqual(expect.arrayContaining(Object.keys(depends_on)));
      if (network_mode !== undefined) expect(names).toContain(network_mode.replace("service:", ""));
      for (const source of volumes.map((volume) => volume.split(":")[0]!)) {
        if (source.startsWith("./")) expect(read(`examples/deploy/${source}`)).not.toBe("");
        else expect(Object.keys(compose.volumes)).toContain(source);
      }
    }
  });

  it("set up the login and the NATS server, and may do so again", async () => {
    const role = `hawser_test_${randomBytes(6).toString("hex")}`;
    const { environment } = compose.services["setup"]!;
    const variables = { ...environment, BRIDGE_USER: role, BRIDGE_PASSWORD: "it's secret" };
    await using database = await testDatabase();
    const client = new pg.Client(database.url);
    await client.connect();
    try {
      for (let time = 1; time <= 2; time++) await runScript(client, read("examples/deploy/setup.sql"), variables);
      const { rows } = await client.query(
        `SELECT r.rolcanlogin AS logs_in, pg_has_role(r.oid, 'hawser_bridge', 'MEMBER') AS is_bridge, s.options
           FROM pg_roles AS r, hawser_bridge_data.nats_server AS s WHERE r.rolname = $1`,
        [role],
      );
      expect(rows).toEqual([{ logs_in: true, is_bridge: true, options: expect.objectContaining({ host: "nats" }) }]);
    } finally {
      await client.query(`DROP ROLE IF EXISTS ${role}`);
      await client.end();
    }
  });
});

it("the image starts a command that there is, and copies only what .dockerignore lets through", () => {
  const dockerfile = read("deploy/Dockerfile");
  expect(unknownIn(JSON.parse(/^CMD (.*)$/m.exec(dockerfile)![1]!) as string[])).toEqual([]);
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(\S+)/gm)].map(([, file]) => file!);
  expect([...read(".dockerignore").matchAll(/^!(.*)$/gm)].map(([, pattern]) => pattern!)).toEqual(copied);
});

describe("the chart", () => {
  const values = load(read("deploy/chart/values.yaml")) as {
    readonly user: number;
    readonly group: number;
    readonly serve: { readonly ports: Readonly<Record<"gateway" | "monitor", number>> };
  };
  const template = read("deploy/chart/templates/serve.yaml");

  it("starts `hawser serve` and `hawser init` with flags that they have", () => {
    const args = /^ +args:\n((?: +(?:- .*|\{\{.*)\n)+)/m.exec(template)![1]!;
    const words = [...args.matchAll(/^ +- (.*)$/gm)].map(([, word]) => word!);
    expect(words.slice(0, 2)).toEqual(["serve", "--listen"]);
    expect(words.filter((word) => word.startsWith("--")).length).toBeGreaterThan(8);
    expect(unknownIn(words)).toEqual([]);
    expect(read("deploy/chart/templates/_helpers.tpl")).toContain('(concat (list "init") .Values.migration.args)');
    expect(flags.has("init")).toBe(true);
  });

  it("has the version of the package, the user of the image and the default port", () => {
    const { version } = JSON.parse(read("package.json")) as { version: string };
    expect(load(read("deploy/chart/Chart.yaml"))).toMatchObject({ version, appVersion: version });
    expect(read("deploy/Dockerfile")).toContain(`USER ${values.user}:${values.group}`);
    expect(serveSettingsDefaults.listen).toBe(`127.0.0.1:${values.serve.ports.gateway}`);
  });

  it("takes the values that docs/kubernetes.md has", () => {
    const check = new Ajv({ strict: false }).compile(JSON.parse(read("deploy/chart/values.schema.json")) as object);
    const blocks = [...read("docs/kubernetes.md").matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, text]) => text!);
    expect(blocks.length).toBeGreaterThan(1);
    for (const block of blocks) expect(check(load(block)), JSON.stringify(check.errors)).toBe(true);
  });

  it("has a schema that takes its values, and refuses a name that it does not know at every level", () => {
    const check = new Ajv({ strict: false }).compile(JSON.parse(read("deploy/chart/values.schema.json")) as object);
    expect(check(values), JSON.stringify(check.errors)).toBe(true);
    const levels = (value: unknown, path: readonly string[]): (readonly string[])[] =>
      value === null || typeof value !== "object" || Array.isArray(value)
        ? []
        : [path, ...Object.entries(value).flatMap(([key, each]) => levels(each, [...path, key]))];
    // Kubernetes' own objects, which its API server checks.
    const free = /^serve\.(resources\..*|podAnnotations|nodeSelector)$|^podMonitor\.labels$/;
    const closed = levels(values, []).filter((path) => !free.test(path.join(".")));
    expect(closed.length).toBeGreaterThan(10);
    for (const path of closed) {
      const changed = structuredClone(values) as Record<string, unknown>;
      const place = path.reduce((each, key) => each[key] as Record<string, unknown>, changed);
      place["typo"] = 1;
      expect(check(changed), path.join(".")).toBe(false);
    }
  });
});

it.each(["docs/operations.md", "docs/nats-to-sql.md"])("%s names only flags that some command has", (page) => {
  const known = new Set([...flags.values()].flat());
  const spans = [...read(page).matchAll(/`((?:hawser |--)[^`\n]+)`/g)].map(([, span]) => span!);
  const named = spans.flatMap((span) => [...span.matchAll(/--([a-z-]+)/g)].map(([, flag]) => flag!));
  expect(named.length).toBeGreaterThan(10);
  expect(named.filter((flag) => !known.has(flag))).toEqual([]);
});

describe("the alerts", () => {
  const { groups } = load(read("deploy/chart/alerts.yaml")) as {
    readonly groups: readonly {
      readonly rules: readonly {
        readonly alert: string;
        readonly expr: string;
        readonly annotations: Readonly<Record<string, string>>;
      }[];
    }[];
  };
  const rules = groups.flatMap((group) => group.rules);

  it("are on metrics and labels that there are", () => {
    const metrics: readonly Metric[] = [...Object.values(serveMetrics), ...Object.values(peerMetrics)];
    const labels = new Map(metrics.map(({ name, labels }) => [name, labels]));
    for (const { expr, annotations } of rules) {
      const named = [...expr.matchAll(/\bhawser_\w+/g)].map(([name]) => name);
      expect([...labels.keys()]).toEqual(expect.arrayContaining(named));
      // Of Prometheus itself, and what all metrics have.
      const known = [...named.flatMap((name) => labels.get(name)!), "database", "instance", "job"];
      const texts = Object.values(annotations).join(" ");
      const used = [...texts.matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label!);
      expect(known).toEqual(expect.arrayContaining(used));
    }
  });

  it("have a remedy, and a section of generated/docs/alerts.md each, which their links name", () => {
    for (const { alert, annotations } of rules) {
      expect(annotations["runbook_url"]).toBe(
        `https://runbooks.example/generated/docs/alerts.md#${alert.toLowerCase()}`,
      );
      expect(annotations["action"]).toMatch(/^[A-Z].*\.$/);
    }
    const page = read("generated/docs/alerts.md");
    expect([...page.matchAll(/^## (Hawser\w+)$/gm)].map(([, name]) => name)).toEqual(rules.map(({ alert }) => alert));
    expect(page).not.toMatch(/\{\{|\}\}/);
  });
});

/** A script of psql, as far as ours goes: variables of the environment, and results that are statements. */
async function runScript(client: pg.Client, script: string, environment: Readonly<Record<string, string>>) {
  const variables = new Map<string, string>();
  let statement = "";
  for (const line of script.split("\n").filter((each) => !each.startsWith("--"))) {
    const [, name, from] = /^\\getenv (\w+) (\w+)$/.exec(line) ?? [];
    if (name !== undefined) {
      variables.set(name, environment[from!]!);
      continue;
    }
    const isExecuted = line === "\\gexec";
    if (!isExecuted) statement += `${line}\n`;
    if (!isExecuted && !line.endsWith(";")) continue;
    const text = statement.replace(/:'(\w+)'/g, (_, variable: string) => pg.escapeLiteral(variables.get(variable)!));
    statement = "";
    const { rows } = await client.query<string[]>({ text, rowMode: "array" });
    if (isExecuted) for (const row of rows) for (const each of row) await client.query(each);
  }
  expect(statement.trim()).toBe("");
}
