/**
 * Schemas made from proto files by buf as in a user's project, at run time.
 */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createFileRegistry, type DescMessage, type FileRegistry, fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const bufScript = createRequire(import.meta.url).resolve("@bufbuild/buf/bin/buf");
const options = fileURLToPath(new URL("../../../proto/options", import.meta.url));

/** Proto files by path, beside those of `proto/options`; the schemas in them. */
export async function compileSchemas(protos: Readonly<Record<string, string>>): Promise<FileRegistry> {
  return createFileRegistry(await compileImage(protos));
}

/** The image that `buf build` makes of proto files. */
async function compileImage(protos: Readonly<Record<string, string>>): Promise<FileDescriptorSet> {
  const folder = await mkdtemp(join(tmpdir(), "hawser-typed-"));
  try {
    await cp(options, join(folder, "options"), { recursive: true });
    await writeFile(
      join(folder, "buf.yaml"),
      "version: v2\nmodules:\n  - path: proto\n  - path: options/topic\n  - path: options/validate\n",
    );
    for (const [path, text] of Object.entries(protos)) {
      const file = join(folder, "proto", path);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text);
    }
    const image = join(folder, "image.binpb");
    await promisify(execFile)(process.execPath, [bufScript, "build", "--output", image], { cwd: folder });
    return fromBinary(FileDescriptorSetSchema, await readFile(image));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The schema of a message. */
export function messageIn(registry: FileRegistry, typeName: string): DescMessage {
  const found = registry.getMessage(typeName);
  if (found === undefined) throw new Error(`there is no message ${typeName}`);
  return found;
}
