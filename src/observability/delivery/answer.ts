/** What can be of interest in an answer fits in this; anybody can send more. */
const MOST_BYTES = 64 * 1_024;

/** The beginning of an answer's body, unpacked; what comes after `mostBytes` is not fetched. */
export async function readAnswer(response: Response, mostBytes = MOST_BYTES): Promise<Buffer> {
  const reader = response.body?.getReader();
  const chunks: Uint8Array[] = [];
  let left = mostBytes;
  while (reader !== undefined && left > 0) {
    const { done, value } = await reader.read();
    if (done) return Buffer.concat(chunks);
    chunks.push(value.subarray(0, left));
    left -= value.length;
  }
  // Closes the connection, since nobody will read what is still to come on it.
  reader?.cancel().catch(() => {});
  return Buffer.concat(chunks);
}
