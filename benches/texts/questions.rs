//! What is asked: texts of three kinds to be written, and 200 short questions of ten kinds.

/// What is written, greedy, with and without drafts: its name and what asks for it.
pub(crate) const WRITTEN: &[(&str, &str)] = &[
    (
        "quotation",
        "Repeat the following text word for word, from the beginning to the end, and write nothing else: The river rises in \
         the hills behind the old mill and runs for twelve miles through meadows and small woods before it meets the sea. In \
         spring the water is high and brown, and the farmers keep their cattle away from the banks. In summer children build \
         dams of stones and branches, and in the evening herons stand in the shallow places and wait. An old man who lives \
         beside the bridge has written down the height of the water every morning for forty years. He says that the river \
         never does the same thing twice, but that it always tells you a day before what it is going to do. When the stones \
         under the bridge begin to hum, he carries his chairs upstairs and waits for the rain.",
    ),
    (
        "code",
        "Write a Python class for a bank account with methods to deposit money, to withdraw money, to print the balance and to \
         transfer money to another account, with an error for each wrong amount. Then write tests for it.",
    ),
    (
        "free text",
        "Tell a long story about a girl who finds an old map in the attic of her grandmother's house.",
    ),
];

const COUNTRIES: [&str; 20] = [
    "France", "Japan", "Italy", "Egypt", "Canada", "Brazil", "India", "Kenya", "Norway", "Spain", "Peru",
    "Greece", "China", "Poland", "Cuba", "Ireland", "Turkey", "Chile", "Finland", "Portugal",
];
const THINGS: [&str; 20] = [
    "a river",
    "the moon",
    "a bicycle",
    "bread",
    "a violin",
    "snow",
    "an apple",
    "a bridge",
    "a cat",
    "the sea",
    "a clock",
    "a garden",
    "coffee",
    "a train",
    "a book",
    "rain",
    "a mountain",
    "a spoon",
    "a letter",
    "a bee",
];
const ADJECTIVES: [&str; 20] = [
    "hot", "big", "happy", "fast", "light", "old", "hard", "loud", "rich", "early", "full", "strong", "near",
    "dry", "clean", "deep", "wide", "sweet", "brave", "simple",
];
const PLACES: [&str; 20] = [
    "a kitchen",
    "a forest",
    "a school",
    "a hospital",
    "an airport",
    "a farm",
    "a library",
    "a harbour",
    "a bakery",
    "a museum",
    "a garage",
    "a zoo",
    "a theatre",
    "a bank",
    "an office",
    "a desert",
    "a castle",
    "a station",
    "a shop",
    "a park",
];

/// All questions, kind by kind in turn, so that neighbours in a pass are of unequal kinds.
pub(crate) fn all() -> Vec<String> {
    let kinds: [&dyn Fn(usize) -> String; 10] = [
        &|i| format!("What is the capital of {}?", COUNTRIES[i]),
        &|i| format!("What is {} plus {}?", 3 * i + 2, 5 * i + 1),
        &|i| {
            format!(
                "Name an animal that begins with the letter {}.",
                char::from(b'A' + i as u8)
            )
        },
        &|i| format!("What is the opposite of \"{}\"?", ADJECTIVES[i]),
        &|i| format!("Write one sentence about {}.", THINGS[i]),
        &|i| format!("Translate into French: {}", THINGS[i]),
        &|i| format!("Write a Python function that multiplies a number by {}.", i + 2),
        &|i| format!("Is {} alive? Answer yes or no.", THINGS[i]),
        &|i| format!("Repeat word for word: In {} there was {}.", PLACES[i], THINGS[i]),
        &|i| format!("List three things that are found in {}.", PLACES[i]),
    ];
    (0..COUNTRIES.len())
        .flat_map(|i| kinds.iter().map(move |kind| kind(i)))
        .collect()
}
