/**
 * The frame of a picture as SVG, and its texts. A picture brings its own background, dark where the reader's system is, so
 * that it can be read wherever it is shown.
 */

/** A picture, without its frame. */
export interface Picture {
  readonly title: string;
  /** Text alternative, for screen readers. */
  readonly inWords: string;
  readonly width: number;
  readonly height: number;
  /** Style sheet, with a part for dark systems. */
  readonly style: string;
  /** Elements, behind the background and the title. */
  readonly body: readonly string[];
}

/** The picture as a file. */
export function svgOf({ title, inWords, width, height, style, body }: Picture): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title description">`,
    `<title id="title">${escaped(title)}</title>`,
    `<desc id="description">${escaped(inWords)}</desc>`,
    `<style>${style}</style>`,
    `<rect class="card" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>`,
    text(20, 30, title, "title"),
    ...body,
    "</svg>",
    "",
  ].join("\n");
}

export function text(
  x: number | string,
  y: number | string,
  content: string,
  className?: string,
  anchor?: string,
): string {
  const attributes = `${className === undefined ? "" : ` class="${className}"`}${anchor === undefined ? "" : ` text-anchor="${anchor}"`}`;
  return `<text x="${x}" y="${y}"${attributes}>${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
