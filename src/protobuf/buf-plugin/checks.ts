/**
 * Checks of the plugin: Hawser must be able to use the schemas with a topic, and a changed option must not stop
 * messages from arriving.
 */
import { create, createFileRegistry, type DescMessage } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { HawserError } from "../../foundation/errors/index.js";
import { allRulesOf, hasTopic, type TopicOfSchema, topicOf } from "../typed/index.js";
import type { Annotation, CheckedFile, CheckRequest, PluginRule } from "./messages.js";

const schemaRule = "HAWSER_SCHEMA";
const sameTopicRule = "HAWSER_SAME_TOPIC";

export const rules: readonly PluginRule[] = [
  {
    id: schemaRule,
    type: "lint",
    purpose: "Checks that Hawser can use the topic and the rules of each message that has a topic.",
  },
  {
    id: sameTopicRule,
    type: "breaking",
    purpose: "Checks that messages keep their topic, subject, stream, key and message id.",
  },
];

/** Message of the checked files. */
interface Found {
  readonly schema: DescMessage;
  /** Path in the descriptor of its file. */
  readonly path: readonly number[];
  readonly isImport: boolean;
}

/** Finds the messages that break rules. */
export function checkFiles({ files, against, rules: wanted }: CheckRequest): Annotation[] {
  const now = messagesOf(files);
  const annotations: Annotation[] = [];
  const isWanted = (rule: string): boolean => wanted.length === 0 || wanted.includes(rule);
  const add = (rule: string, { schema, path }: Found, text: string): void => {
    annotations.push({ rule, text, file: schema.file.proto.name, path });
  };
  if (isWanted(schemaRule)) {
    for (const found of now.values()) {
      if (found.isImport || !hasTopic(found.schema)) continue;
      const problem = problemOf(found.schema);
      if (problem !== undefined) add(schemaRule, found, problem);
    }
  }
  if (isWanted(sameTopicRule)) {
    const before = messagesOf(against);
    for (const [typeName, found] of now) {
      const old = before.get(typeName);
      if (old === undefined || found.isImport || !hasTopic(old.schema)) continue;
      for (const change of changesOf(old.schema, found.schema)) add(sameTopicRule, found, `${typeName}: ${change}`);
    }
  }
  return annotations;
}

function problemOf(schema: DescMessage): string | undefined {
  try {
    topicOf(schema);
    allRulesOf(schema);
    return undefined;
  } catch (error) {
    if (error instanceof HawserError) return error.message;
    throw error;
  }
}

/** Changes of a message's option between two versions, with their consequences. */
function changesOf(before: DescMessage, now: DescMessage): string[] {
  const old = optionTextsOf(before);
  if (old === undefined) return [];
  if (!hasTopic(now)) return ["its option (hawser.v1.topic) was removed; its receivers would get no more messages"];
  const present = optionTextsOf(now);
  // The rule HAWSER_SCHEMA reports an option that cannot be read.
  if (present === undefined) return [];
  return Object.keys(consequences).flatMap((name) => {
    const [from, to] = [old[name as keyof OptionTexts], present[name as keyof OptionTexts]];
    if (from === to) return [];
    const change =
      from === undefined
        ? `is set to ${to}`
        : to === undefined
          ? `is removed (it was ${from})`
          : `changes from ${from} to ${to}`;
    return [`its ${name} ${change}; ${consequences[name as keyof OptionTexts]}`];
  });
}

const consequences = {
  topic: "receivers of the old topic would get no more messages",
  subject: "receivers of the old subject would get no more messages",
  stream: "publishers and readers must use the same setting",
  key: "messages with one key would lose their order while both versions are in use",
  message_id: "a stream would store a message again that it has under the old id",
} as const;

type OptionTexts = Readonly<Record<keyof typeof consequences, string | undefined>>;

/** Texts of a message's option; undefined if the option cannot be read. */
function optionTextsOf(schema: DescMessage): OptionTexts | undefined {
  let option: TopicOfSchema;
  try {
    option = topicOf(schema);
  } catch {
    return undefined;
  }
  const quoted = (value: string | undefined): string | undefined =>
    value === undefined ? undefined : JSON.stringify(value);
  return {
    topic: quoted(option.topic),
    subject: quoted(option.subject?.text),
    stream: String(option.stream),
    key: quoted(option.key?.name),
    message_id: quoted(option.messageId?.field.name),
  };
}

/** Messages by full name, including nested ones. */
function messagesOf(files: readonly CheckedFile[]): Map<string, Found> {
  const registry = createFileRegistry(
    create(FileDescriptorSetSchema, { file: importsFirst(files.map(({ file }) => file)) }),
  );
  const imports = new Set(files.filter(({ isImport }) => isImport).map(({ file }) => file.name));
  const found = new Map<string, Found>();
  const add = (schema: DescMessage, path: readonly number[]): void => {
    found.set(schema.typeName, { schema, path, isImport: imports.has(schema.file.proto.name) });
    // The index counts map entries, which `nestedMessages` leaves out.
    for (const nested of schema.nestedMessages) {
      add(nested, [...path, 3, schema.proto.nestedType.findIndex(({ name }) => name === nested.name)]);
    }
  };
  for (const file of registry.files) for (const [index, schema] of file.messages.entries()) add(schema, [4, index]);
  return found;
}

/** Orders the files so that each follows its imports; buf orders them by name. */
function importsFirst(files: readonly FileDescriptorProto[]): FileDescriptorProto[] {
  const byName = new Map(files.map((file) => [file.name, file]));
  const sorted = new Set<FileDescriptorProto>();
  const add = (file: FileDescriptorProto | undefined): void => {
    if (file === undefined || sorted.has(file)) return;
    for (const name of file.dependency) add(byName.get(name));
    sorted.add(file);
  };
  for (const file of files) add(file);
  return [...sorted];
}
