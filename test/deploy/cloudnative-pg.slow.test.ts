/**
 * The example for CloudNativePG: its statements, in the order in which the operator runs them, leave a database that `hawser
 * init` completes without a superuser, and that `hawser serve` serves. The operator itself does not run here.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadAll } from "js-yaml";
import { expect, it } from "vitest";
import { serve } from "../../src/nats/serve/index.js";
import { publicFunctionCount } from "../../src/operating/installation/index.js";
import { hawserProcess, jsonLines } from "../cli/support/hawser.js";
import { ownPostgres } from "../faults/support/own-postgres.js";
import { testNatsUrl } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { projectDirectory } from "../support/program.js";

/** Properties of the manifests that the test reads. */
interface Manifests {
  readonly Secret: {
    readonly stringData: { readonly username: string; readonly password: string; readonly uri: string };
  };
  readonly Cluster: {
    readonly spec: {
      readonly bootstrap: {
        readonly initdb: {
          readonly database: string;
          readonly owner: string;
          readonly postInitApplicationSQL: readonly string[];
        };
      };
      readonly managed: { readonly roles: readonly { readonly name: string; readonly inRoles: readonly string[] }[] };
    };
  };
}

const text = readFileSync(join(projectDirectory, "deploy/cloudnative-pg.yaml"), "utf8");
const all = loadAll(text) as { readonly kind: string }[];
const { Secret: secret, Cluster: cluster } = Object.fromEntries(
  all.map((each) => [each.kind, each]),
) as unknown as Manifests;

it("the database is complete after hawser init, as the owner that is no superuser", async (context) => {
  await using server = await ownPostgres();
  const [{ version }] = (await rowsOf(server.url, "SELECT current_setting('server_version_num')::int AS version")) as [
    { version: number },
  ];
  // WITH INHERIT FALSE.
  if (version < 160_000) context.skip();
  const { database, owner, postInitApplicationSQL } = cluster.spec.bootstrap.initdb;

  // The operator's bootstrap.
  await onServer(
    server.url,
    `CREATE ROLE ${owner} LOGIN PASSWORD 'test'`,
    `CREATE DATABASE ${database} OWNER ${owner}`,
  );
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  await onServer(url.href, ...postInitApplicationSQL);
  for (const { name, inRoles } of cluster.spec.managed.roles) {
    expect(name).toBe(secret.stringData.username);
    await onServer(url.href, `CREATE ROLE ${name} LOGIN PASSWORD 'test' IN ROLE ${inRoles.join(", ")}`);
  }
  const as = (user: string): string => {
    const own = new URL(url);
    own.username = user;
    own.password = "test";
    return own.href;
  };
  const inits = [1, 2].map(() => hawserProcess(["init", "--json"], { databaseUrl: as(owner) }));
  for (const { status, stdout, stderr } of await Promise.all(inits)) {
    expect(status, stderr).toBe(0);
    expect(jsonLines(stdout)[0]).toMatchObject({ nats: { functions: publicFunctionCount }, partial: false });
  }
  const login = cluster.spec.managed.roles[0]!.name;
  await using _ = await serve({ databaseUrl: as(login), listen: "127.0.0.1:0" });
  const { hostname, port } = new URL(testNatsUrl());
  const nats = JSON.stringify({ host: hostname, port: Number(port) });
  await onServer(as(owner), `SELECT hawser.set_nats_server('${nats}')`, "SELECT litmus_pgnats_reload_conf()");
  // Nobody else may use dblink.
  const [row] = await rowsOf(
    url.href,
    `SELECT has_schema_privilege('${login}', 'hawser_dblink', 'USAGE') AS uses_dblink,
            (SELECT rolsuper FROM pg_roles WHERE rolname = '${owner}') AS superuser`,
  );
  expect(row).toEqual({ uses_dblink: false, superuser: false });
});

it("the secret's URL has its own user, password and database", () => {
  const { username, password, uri } = secret.stringData;
  expect(new URL(uri)).toMatchObject({ username, password, pathname: `/${cluster.spec.bootstrap.initdb.database}` });
});
