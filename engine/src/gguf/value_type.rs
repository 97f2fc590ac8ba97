//! The types of metadata values: ids, names and sizes, as the GGUF specification numbers them.

macro_rules! value_types {
    ($($variant:ident = $id:literal, $name:literal, $size:literal;)*) => {
        /// Type of a metadata value or of an array's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub(super) enum ValueType { $($variant = $id,)* }

        impl ValueType {
            /// The type with this id; `None` where the specification has none.
            pub(super) fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(ValueType::$variant),)*
                    _ => None,
                }
            }

            /// The name in error messages.
            pub(super) const fn name(self) -> &'static str {
                match self { $(ValueType::$variant => $name,)* }
            }

            /// Bytes of one value; 0 for strings and arrays, which carry their length.
            pub(super) const fn size(self) -> usize {
                match self { $(ValueType::$variant => $size,)* }
            }
        }
    };
}

value_types! {
    U8 = 0, "u8", 1;
    I8 = 1, "i8", 1;
    U16 = 2, "u16", 2;
    I16 = 3, "i16", 2;
    U32 = 4, "u32", 4;
    I32 = 5, "i32", 4;
    F32 = 6, "f32", 4;
    Bool = 7, "bool", 1;
    String = 8, "string", 0;
    Array = 9, "array", 0;
    U64 = 10, "u64", 8;
    I64 = 11, "i64", 8;
    F64 = 12, "f64", 8;
}

impl ValueType {
    /// The id in the file format.
    pub(super) const fn id(self) -> u32 {
        self as u32
    }
}
