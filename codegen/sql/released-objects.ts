/**
 * Functions and views of released versions. `schema/released-functions.txt` has a line for each: the last step at which
 * it was so, and its declaration, as far as CREATE OR REPLACE cannot change it.
 */
import { existsSync, readFileSync } from "node:fs";
import { SchemaError } from "../model/spec-error.js";

/** Path relative to the working directory. */
export const releasedObjectsFile = "schema/released-functions.txt";

/** Content of {@link releasedObjectsFile}. */
export interface ReleasedObjects {
  /** SHA-256 of the functions, views and grants of the last release, in hex; undefined before the first one. */
  readonly checksum: string | undefined;
  readonly lines: readonly ReleasedObject[];
}

interface ReleasedObject {
  /** Last released step at which the object was declared so. */
  readonly step: number;
  /** As {@link declaredObjects} returns it. */
  readonly declaration: string;
}

const checksumLine = /^SHA-256 ([0-9a-f]{64})$/;
const objectLine = /^([1-9]\d*) ((?:FUNCTION hawser\.\w+\([^()]*\)|VIEW hawser\.\w+) IS \(.+)$/;

/** Reads {@link releasedObjectsFile}. @throws SchemaError if a line has another form */
export function readReleasedObjects(): ReleasedObjects {
  if (!existsSync(releasedObjectsFile)) return { checksum: undefined, lines: [] };
  const texts = readFileSync(releasedObjectsFile, "utf8")
    .split(/\r?\n/)
    .filter((line) => line !== "");
  let checksum: string | undefined;
  const lines: ReleasedObject[] = [];
  for (const text of texts) {
    const hash = checksumLine.exec(text)?.[1];
    const [, step, declaration] = objectLine.exec(text) ?? [];
    if (hash !== undefined && checksum === undefined) checksum = hash;
    else if (declaration !== undefined) lines.push({ step: Number(step), declaration });
    else
      throw new SchemaError(
        releasedObjectsFile,
        "",
        `has the line ${JSON.stringify(text)}; only \`npm run freeze-migration\` writes this file`,
      );
  }
  return { checksum, lines };
}

/** Content of the file after a release. @param step number of the step that is frozen */
export function releasedObjectsText(
  released: ReleasedObjects,
  step: number,
  checksum: string,
  functions: string,
): string {
  const present = declaredObjects(functions);
  const gone = released.lines.filter(({ declaration }) => !present.includes(declaration));
  const lines = [...gone, ...present.map((declaration) => ({ step, declaration }))];
  return [`SHA-256 ${checksum}`, ...lines.map((line) => `${line.step} ${line.declaration}`), ""].join("\n");
}

/** Statement that drops an object. */
export interface DroppedObject {
  /** Last step whose version had it. */
  readonly step: number;
  /**
   * True for a function that is gone, which is dropped last: until then, unchanged views and triggers may call it. All
   * others are dropped before the functions and views are made.
   */
  readonly last: boolean;
  readonly sql: string;
}

/** Released objects that a text of functions and views lacks, or declares otherwise. Views come first, since they call functions. */
export function droppedObjects({ lines }: ReleasedObjects, functions: string): DroppedObject[] {
  const nameOf = (declaration: string) => declaration.slice(0, declaration.indexOf(" IS "));
  const present = new Set(declaredObjects(functions));
  const names = new Set([...present].map(nameOf));
  const isView = ({ sql }: DroppedObject) => Number(sql.startsWith("DROP VIEW"));
  return lines
    .filter(({ declaration }) => !present.has(declaration))
    .map(({ step, declaration }) => {
      const name = nameOf(declaration);
      const last = name.startsWith("FUNCTION") && !names.has(name);
      return { step, last, sql: `DROP ${name.replace(" ", " IF EXISTS ")};` };
    })
    .sort((one, other) => isView(other) - isView(one));
}

const functionStatement =
  /^CREATE OR REPLACE FUNCTION hawser\.\w+(\((?:(?!^LANGUAGE ).)*?)\nLANGUAGE (?:(?!^AS ).)*?^AS \$(\w+)\$.*?\$\2\$;\nCOMMENT ON FUNCTION (hawser\.\w+\(.*?\)) IS /gms;
const viewStatement = /^CREATE OR REPLACE VIEW (hawser\.\w+) .*?AS\nSELECT\n(.*?)\nFROM /gms;

/**
 * Functions and views of an SQL text, such as `FUNCTION hawser.id_of_topic(text) IS (p_topic text, OUT k integer)` and
 * `VIEW hawser.outbox_status IS (sink text, waiting bigint)`.
 */
function declaredObjects(functions: string): string[] {
  const oneLine = (text: string) => text.trim().replaceAll(/\s+/g, " ");
  return [
    ...[...functions.matchAll(functionStatement)].map(
      ([, head, , signature]) => `FUNCTION ${signature} IS ${oneLine(head!)}`,
    ),
    ...[...functions.matchAll(viewStatement)].map(
      ([, name, columns]) => `VIEW ${name} IS (${oneLine(columns!).replaceAll(/v\.\w+::(\S+) AS (\w+)/g, "$2 $1")})`,
    ),
  ];
}
