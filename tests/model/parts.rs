//! What the models are made of: small numbers round the real code.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use tidemark::{
    coherence::{ReadView, Watermarks},
    model::{ListName, OriginTime, TodoName},
};

/// How long an overtaken page may be answered.
pub const GRACE: Duration = Duration::from_nanos(1);

/// A time of the origin, small.
pub type Time = u8;

/// As the code has it.
pub const fn at(time: Time) -> OriginTime {
    OriginTime(time as u64)
}

/// As the models have it. No model gets beyond this.
pub fn small(time: OriginTime) -> Time {
    Time::try_from(time.0).unwrap_or(Time::MAX)
}

/// The list of all models.
pub fn list() -> &'static ListName {
    static LIST: OnceLock<ListName> = OnceLock::new();
    LIST.get_or_init(|| ListName::parse("lists/home").expect("a name"))
}

/// Two todos of that list whose stripes differ also in a table of two.
pub fn todo(key: usize) -> &'static TodoName {
    static TODOS: OnceLock<[TodoName; 2]> = OnceLock::new();
    &TODOS.get_or_init(|| {
        let mut by_stripe = HashMap::new();
        for id in 0..64 {
            let name = list().todo(&format!("t{id}")).expect("a name");
            let coherence = Watermarks::new(2, 1);
            coherence.place(OriginTime::ZERO);
            coherence.raise_todo("first", OriginTime(1));
            by_stripe.insert(coherence.view_todo(name.as_str()).min_as_of, name);
        }
        [
            by_stripe.remove(&at(0)).expect("one stripe"),
            by_stripe.remove(&at(1)).expect("the other"),
        ]
    })[key]
}

/// The numbers of a `Watermarks`, to be kept in a state. It is built anew from
/// them for each step, and read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fences {
    pub frontier: Time,
    pub floor: Time,
    /// Without the floor.
    pub todos: [Time; 2],
    pub list: Time,
    /// The highest time that an own write raised on the list.
    pub own_list: Time,
}

impl Fences {
    /// A replica that has just placed its floor.
    pub fn placed(start: Time) -> Self {
        let none = Self {
            frontier: 0,
            floor: 0,
            todos: [0; 2],
            list: 0,
            own_list: 0,
        };
        let coherence = none.build(0);
        coherence.place(at(start));
        Self {
            frontier: small(coherence.frontier()),
            floor: small(coherence.floor()),
            ..none
        }
    }

    fn build(&self, floor: Time) -> Watermarks {
        let coherence = Watermarks::new(2, 1);
        coherence.place(OriginTime::ZERO);
        coherence.advance(at(self.frontier));
        coherence.raise_floor(at(floor));
        for key in 0..2 {
            coherence.raise_todo(todo(key).as_str(), at(self.todos[key]));
        }
        coherence.raise_list_by_own_write(list().as_str(), at(self.own_list));
        coherence.raise_list(list().as_str(), at(self.list));
        coherence
    }

    /// Asks the real code.
    pub fn look<R>(&self, look: impl FnOnce(&Watermarks) -> R) -> R {
        look(&self.build(self.floor))
    }

    /// Lets the real code make a step: fences, or the floor, or the frontier.
    pub fn step(&mut self, step: impl Fn(&Watermarks)) {
        let whole = self.build(self.floor);
        step(&whole);
        let (frontier, floor) = (small(whole.frontier()), small(whole.floor()));
        // A check tells the greater of fence and floor: the fence alone is
        // read where the floor is at the bottom.
        let bare = if self.floor == 0 && floor == 0 {
            whole
        } else {
            let bare = self.build(0);
            if floor == self.floor {
                step(&bare);
            }
            bare
        };
        *self = Self {
            frontier,
            floor,
            todos: [0, 1].map(|key| small(bare.view_todo(todo(key).as_str()).min_as_of)),
            list: small(bare.view_list(list().as_str()).min_as_of),
            own_list: small(bare.grace_min_as_of(list().as_str())),
        };
    }

    /// The check of a todo, all read at one moment.
    pub fn view_todo(&self, key: usize) -> Viewed {
        self.look(|coherence| coherence.view_todo(todo(key).as_str()))
            .into()
    }

    /// Whether something is lower than it was.
    pub fn fell_from(&self, before: &Self) -> bool {
        self.frontier < before.frontier
            || self.floor < before.floor
            || self.list < before.list
            || self.own_list < before.own_list
            || (0..2).any(|key| self.todos[key] < before.todos[key])
    }
}

/// A `Check` in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Viewed {
    pub frontier: Time,
    pub min_as_of: Time,
}

impl Viewed {
    /// As the code has it.
    pub const fn real(&self) -> ReadView {
        ReadView {
            frontier: at(self.frontier),
            min_as_of: at(self.min_as_of),
        }
    }
}

impl From<ReadView> for Viewed {
    fn from(view: ReadView) -> Self {
        Self {
            frontier: small(view.frontier),
            min_as_of: small(view.min_as_of),
        }
    }
}

/// A stamped value: the value is the time of the change that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub as_of: Time,
    pub version: Time,
}

/// Everything that a shared tier was ever given: it may answer with any of
/// it, or with nothing. One bit for each stamp; times stay below 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bag(u64);

impl Bag {
    /// It may bring this back from now on.
    pub fn put(&mut self, stamp: Stamp) {
        assert!(stamp.as_of < 8 && stamp.version < 8);
        self.0 |= 1 << (stamp.as_of * 8 + stamp.version);
    }

    /// All of it.
    pub fn all(self) -> impl Iterator<Item = Stamp> {
        (0..64)
            .filter(move |bit| self.0 >> bit & 1 == 1)
            .map(|bit| Stamp {
                as_of: bit / 8,
                version: bit % 8,
            })
    }
}

/// The near tier keeps the newer one.
pub fn keep(near: &mut Option<Stamp>, stamp: Stamp) {
    if near.is_none_or(|kept| kept.as_of < stamp.as_of) {
        *near = Some(stamp);
    }
}
