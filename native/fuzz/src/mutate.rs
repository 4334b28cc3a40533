//! Mutations for the short run: no coverage to steer by, only inputs that once were interesting, a
//! dictionary, and a generator that gives the same inputs for the same seed.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// An input like one of `inputs`.
pub fn mutate(inputs: &[Vec<u8>], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = random.pick(inputs).clone();
    for _ in 0..=random.below(4) {
        let (from, to) = range(data.len(), random);
        match random.below(9) {
            0 => drop(data.drain(from..to)),
            1 => {
                let copy = data[from..to].to_vec();
                data.splice(to..to, copy);
            }
            2 | 3 => {
                let word = random.pick(words).clone();
                let end = if random.below(2) == 0 { from } else { to };
                data.splice(from..end, word);
            }
            4 => {
                let other = random.pick(inputs);
                let (other_from, other_to) = range(other.len(), random);
                data.splice(from..to, other[other_from..other_to].iter().copied());
            }
            5 if from < data.len() => data[from] ^= 1 << random.below(8),
            6 if from < data.len() => data[from] = random.next() as u8,
            7 => data.insert(from, *random.pick(b"\r\n\t ,:;=\"\0\x7f\x80\xff0a")),
            _ => data.truncate(to),
        }
    }
    data.truncate(8 * 1024);
    data
}

fn range(len: usize, random: &mut Random) -> (usize, usize) {
    let from = random.below(len + 1);
    let most = if random.below(3) == 0 { len - from } else { 16.min(len - from) };
    (from, from + random.below(most + 1))
}

/// The words of a dictionary in libFuzzer's format: `name="value"`, with `\\`, `\"` and `\xAB`.
pub fn dictionary(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| word(line).unwrap_or_else(|| panic!("not a word: {line}"))).collect()
}

fn word(line: &str) -> Option<Vec<u8>> {
    let quoted = &line[line.find('"')? + 1..];
    let mut bytes = quoted.strip_suffix('"')?.bytes();
    let mut word = Vec::new();
    while let Some(byte) = bytes.next() {
        word.push(match byte {
            b'\\' => match bytes.next()? {
                b'x' => {
                    let hex = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
                }
                escaped => escaped,
            },
            byte => byte,
        });
    }
    Some(word)
}
