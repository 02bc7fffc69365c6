import type { AnyDesc, DescFile } from "@bufbuild/protobuf";
import { fileOf } from "./spec-error.js";

/** Field numbers of descriptor.proto, which make up the paths in SourceCodeInfo. */
const path = {
  fileMessage: 4,
  fileEnum: 5,
  fileService: 6,
  fileSyntax: 12,
  messageField: 2,
  messageNested: 3,
  messageEnum: 4,
  messageOneof: 8,
  enumValue: 2,
  serviceMethod: 2,
} as const;

const commentsByFile = new WeakMap<DescFile, Map<string, string>>();

/**
 * Comment directly above an element, without the comment marks; for a file, the comment above `syntax`. Empty if there
 * is none.
 */
export function commentOf(desc: AnyDesc): string {
  const file = fileOf(desc);
  let comments = commentsByFile.get(file);
  if (comments === undefined) {
    comments = readComments(file);
    commentsByFile.set(file, comments);
  }
  return comments.get(pathOf(desc).join(".")) ?? "";
}

/** Comment as one paragraph: line breaks become spaces. */
export function commentLineOf(desc: AnyDesc): string {
  return commentOf(desc).replace(/\s*\n\s*/g, " ");
}

function readComments(file: DescFile): Map<string, string> {
  const comments = new Map<string, string>();
  for (const location of file.proto.sourceCodeInfo?.location ?? []) {
    if (location.leadingComments !== "") {
      const text = location.leadingComments.replace(/^ /gm, "").replace(/[ \t]+$/gm, "");
      comments.set(location.path.join("."), text.trim());
    }
  }
  return comments;
}

function pathOf(desc: AnyDesc): number[] {
  switch (desc.kind) {
    case "file":
      return [path.fileSyntax];
    case "message":
      return desc.parent
        ? [...pathOf(desc.parent), path.messageNested, desc.parent.proto.nestedType.indexOf(desc.proto)]
        : [path.fileMessage, desc.file.proto.messageType.indexOf(desc.proto)];
    case "enum":
      return desc.parent
        ? [...pathOf(desc.parent), path.messageEnum, desc.parent.proto.enumType.indexOf(desc.proto)]
        : [path.fileEnum, desc.file.proto.enumType.indexOf(desc.proto)];
    case "field":
      return [...pathOf(desc.parent), path.messageField, desc.parent.proto.field.indexOf(desc.proto)];
    case "oneof":
      return [...pathOf(desc.parent), path.messageOneof, desc.parent.proto.oneofDecl.indexOf(desc.proto)];
    case "enum_value":
      return [...pathOf(desc.parent), path.enumValue, desc.parent.proto.value.indexOf(desc.proto)];
    case "service":
      return [path.fileService, desc.file.proto.service.indexOf(desc.proto)];
    case "rpc":
      return [...pathOf(desc.parent), path.serviceMethod, desc.parent.proto.method.indexOf(desc.proto)];
    case "extension":
      return [];
  }
}
