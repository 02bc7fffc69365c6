/**
 * Output of the plugins for the shop in `protos/`, which has one of everything that a plugin can meet: as texts, and
 * loaded.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { generateFromSpec } from "../../../codegen/generate.js";
import { compile, generated, requestFor } from "./request.js";

export const shopFiles = ["orders", "parcels", "shop", "till"].map((name) => `hawser/shop/v1/${name}.proto`);

// biome-ignore lint/suspicious/noExplicitAny: modules that are made while the tests run have no types
type Module = Record<string, any>;

export interface Shop {
  /** By path, as below `generated/`: `ts/sql/shop-schema.ts`, `ts/rows/shop.ts`, … */
  readonly files: Readonly<Record<string, string>>;
  readonly orderRules: Module;
  readonly parcelRules: Module;
  readonly rows: Module;
  readonly settings: Module;
  readonly errors: Module;
  readonly sql: Module;
  readonly till: { readonly methods: Module; readonly client: Module; readonly sql: Module };
}

/** The texts of the spec, by path. */
export function shopProtos(): Record<string, string> {
  return Object.fromEntries(
    shopFiles.map((path) => [path, readFileSync(new URL(`../protos/${path.slice(7)}`, import.meta.url), "utf8")]),
  );
}

let made: Promise<Shop> | undefined;

/** Made once for all test files of a worker. */
export function shop(): Promise<Shop> {
  made ??= make();
  return made;
}

async function make(): Promise<Shop> {
  const descriptors = await compile(shopProtos());
  const files = await generated(requestFor(descriptors, shopFiles), generateFromSpec);
  const folder = mkdtempSync(join(tmpdir(), "hawser-shop-"));
  try {
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    const load = (path: string): Promise<Module> =>
      import(/* @vite-ignore */ pathToFileURL(join(folder, "ts", path)).href);
    return {
      files,
      orderRules: await load("rules/shop/orders-rows.ts"),
      parcelRules: await load("rules/shop/parcels.ts"),
      rows: await load("rows/shop.ts"),
      settings: await load("settings/shop.ts"),
      errors: await load("errors/shop.ts"),
      sql: await load("sql/shop-schema.ts"),
      till: {
        methods: await load("nats-functions/methods.ts"),
        client: await load("nats-functions/client.ts"),
        sql: await load("nats-functions/sql.ts"),
      },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
