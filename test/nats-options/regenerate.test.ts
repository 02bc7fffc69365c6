import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ValidatorDatabase } from "./validator-database.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const schemaPath = "schema/nats-server-options.schema.json";
/** What is written anew; everything else is taken from the project as it is. */
const copied = ["proto", "schema", "buf.yaml", "buf.gen.yaml"];
const left = ["generated", ".git", "dist"];
/** What generating may take, in milliseconds: a dozen programs, one for each plugin. */
const patientMs = 300_000;

type Generated = typeof import("../../generated/ts/nats-options/index.js");

/** A copy of the project with a schema that may be changed. */
class ProjectCopy implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  static async create(): Promise<ProjectCopy> {
    const folder = await mkdtemp(join(tmpdir(), "hawser-regenerate-"));
    for (const name of await readdir(root)) {
      if (copied.includes(name)) {
        await cp(join(root, name), join(folder, name), { recursive: true });
      } else if (!left.includes(name)) {
        await symlink(join(root, name), join(folder, name));
      }
    }
    return new ProjectCopy(folder);
  }

  read(path: string): Promise<string> {
    return readFile(join(this.folder, path), "utf8");
  }

  // biome-ignore lint/suspicious/noExplicitAny: any part of the schema may be changed.
  async changeSchema(change: (schema: any) => void): Promise<void> {
    const schema = JSON.parse(await this.read(schemaPath));
    change(schema);
    await writeFile(join(this.folder, schemaPath), JSON.stringify(schema));
  }

  /** `npx buf generate` */
  async generate(): Promise<void> {
    await promisify(execFile)(join(root, "node_modules/.bin/buf"), ["generate"], { cwd: this.folder });
  }

  /** Leaves in buf.gen.yaml only what works from the options schema: the rest takes most of the time. */
  async dropOtherPlugins(): Promise<void> {
    const [head, ...entries] = (await this.read("buf.gen.yaml")).split(/^(?= {2}- local:)/m);
    const own = entries.filter((entry) => entry.includes("codegen/nats-options/"));
    expect(own).toHaveLength(3);
    await writeFile(join(this.folder, "buf.gen.yaml"), [head, ...own].join(""));
  }

  /** The generated TypeScript, loaded. */
  load(): Promise<Generated> {
    const index = pathToFileURL(join(this.folder, "generated/ts/nats-options/index.ts"));
    return import(/* @vite-ignore */ index.href);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

describe("buf generate on an unchanged schema", { timeout: patientMs }, () => {
  it("makes the committed files, wherever it runs", async () => {
    await using project = await ProjectCopy.create();
    await project.dropOtherPlugins();
    await project.generate();
    for (const folder of ["ts", "sql", "docs"].map((kind) => `generated/${kind}/nats-options`)) {
      const names = await readdir(join(project.folder, folder));
      expect(names.sort()).toEqual((await readdir(join(root, folder))).sort());
      for (const name of names) {
        const committed = await readFile(join(root, folder, name), "utf8");
        expect(await project.read(`${folder}/${name}`), `${folder}/${name}`).toBe(committed);
      }
    }
  });
});

describe("after changing a range and the order of authentication in the schema", () => {
  let project: ProjectCopy;
  let database: ValidatorDatabase;
  let generated: Generated;
  beforeAll(async () => {
    project = await ProjectCopy.create();
    await project.changeSchema((schema) => {
      schema.properties.port.maximum = 5000;
      schema["x-auth-priority"].unshift(...schema["x-auth-priority"].splice(3, 1));
    });
    await project.generate();
    generated = await project.load();
    database = await ValidatorDatabase.create(await project.read("generated/sql/nats-options/validator.sql"));
  }, patientMs);
  afterAll(async () => {
    await database?.[Symbol.asyncDispose]();
    await project?.[Symbol.asyncDispose]();
  });

  it("both validators have the new range", async () => {
    const sets = [{ port: "5000" }, { port: "5001" }, { port: 5001 }];
    const inTypeScript = sets.map((options) => generated.checkNatsServerOptions(options));
    expect(inTypeScript.map((answer) => answer.ok || answer.violation.message)).toEqual([
      true,
      'option "port" must be an integer from 1 to 5000',
      'option "port" must be an integer from 1 to 5000',
    ]);
    expect(await database.check(sets)).toEqual(inTypeScript);
  });

  it("both resolvers have the new order", async () => {
    const options = { nkey_seed_path: "/seed", nkey_seed: "S", token_path: "/token", token: "t" };
    expect(generated.authModes.slice(0, 2)).toEqual(["token", "nkey_seed_path"]);
    expect(generated.resolveAuth(options)).toEqual({ mode: "token", token: "t" });
    const { rows } = await database.client.query("SELECT hawser.nats_auth_mode($1) AS mode", [options]);
    expect(rows[0].mode).toBe("token");
  });

  it("the reference page has both", async () => {
    const page = await project.read("generated/docs/nats-options/nats-server-options.md");
    expect(page).toContain("| `port` | integer | `4222` | 1 to 5000 |");
    expect(page).toContain("| 1 | `token` | `token` |");
    expect(page).toContain("| 2 | `nkey_seed_path` | `nkey_seed_path` |");
  });
});

describe("buf generate on a bad schema", { timeout: patientMs }, () => {
  it("fails and names the file and the element", async () => {
    await using project = await ProjectCopy.create();
    await project.dropOtherPlugins();
    await project.changeSchema((schema) => {
      schema.properties.port.default = 0;
    });
    await expect(project.generate()).rejects.toThrow(
      `${schemaPath}: #/properties/port/default: 0 is outside its range, 1 to 65535`,
    );
  });

  it("fails where there is no schema", async () => {
    await using project = await ProjectCopy.create();
    await project.dropOtherPlugins();
    await rm(join(project.folder, schemaPath));
    await expect(project.generate()).rejects.toThrow(`${schemaPath}: #: cannot be read`);
  });
});
