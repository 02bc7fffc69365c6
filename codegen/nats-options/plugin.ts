import { readFileSync } from "node:fs";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponse_Feature,
  CodeGeneratorResponse_FileSchema,
  CodeGeneratorResponseSchema,
  Edition,
} from "@bufbuild/protobuf/wkt";
import type { GeneratedFile } from "../plugin.js";
import type { OptionsModel } from "./model.js";
import { readOptionsSchema } from "./read-schema.js";
import { SchemaError } from "./schema-error.js";

/** Relative to the working directory, which buf makes the root of the project. */
const schemaFile = "schema/nats-server-options.schema.json";

/** Makes files from the options schema. */
export type Printer = (model: OptionsModel) => readonly GeneratedFile[] | Promise<readonly GeneratedFile[]>;

/**
 * Runs a printer as a protoc plugin. The request on stdin is read because the protocol says so; what the printer works
 * from is the JSON schema.
 *
 * A mistake in the schema is the response's error, which buf prints before it exits with a status other than zero. A
 * defect of the printer ends the process, with its stack on stderr.
 */
export async function runSchemaPlugin(print: Printer): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
  }
  fromBinary(CodeGeneratorRequestSchema, Buffer.concat(chunks));
  const response = create(CodeGeneratorResponseSchema, {
    supportedFeatures: BigInt(
      CodeGeneratorResponse_Feature.PROTO3_OPTIONAL | CodeGeneratorResponse_Feature.SUPPORTS_EDITIONS,
    ),
    minimumEdition: Edition.EDITION_PROTO2,
    maximumEdition: Edition.EDITION_2024,
  });
  try {
    const files = await print(readOptionsSchema(readSchemaFile(), schemaFile));
    response.file = files.map(({ path, content }) => create(CodeGeneratorResponse_FileSchema, { name: path, content }));
  } catch (error) {
    if (!(error instanceof SchemaError)) {
      throw error;
    }
    response.error = error.message;
  }
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(toBinary(CodeGeneratorResponseSchema, response), (error) =>
      error ? reject(error) : resolve(),
    );
  });
}

function readSchemaFile(): string {
  try {
    return readFileSync(schemaFile, "utf8");
  } catch (error) {
    throw new SchemaError(schemaFile, "", `cannot be read: ${(error as Error).message}`);
  }
}
