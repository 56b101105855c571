//! The mutations: each is a mistake that once looked right, or nearly. A model has
//! at most one of them, in its own steps around the real code.

macro_rules! mutations {
    ($($name:ident $text:literal,)*) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation { $(#[doc = $text] $name,)* }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// In words.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

mutations! {
    NoFenceCheck "no fence check",
    StampByOperationTime "stamp by operationTime",
    StampByFrontierAtEnd "stamp by the frontier when the load ends",
    FrontierInsideTransaction "frontier = t inside a transaction",
    JoinAnyLoad "join any load of the key",
    RenewalByLaterFrontier "renewal with a frontier read after the check",
    FrontierAfterFence "frontier read after the fence",
    NoAfterClusterTime "no afterClusterTime",
    ResumeByTime "resume by time inside a transaction",
    NoFloorAfterRestart "no floor check after restart",
    NoFloorAfterLostHistory "no floor check after lost history",
    FloorBeforeFrontier "floor read before the frontier",
    FrontierBeforeFloor "frontier jumps before the floor",
    DdlIgnored "DDL ignored",
    FutureStampBelieved "a stamp from the future is believed",
    LowerBoundStamps "lower-bound stamps (a session goes back)",
    TokenBelowPresented "answer's token below the presented one",
    TokenByNewerFrontier "token by a newer f",
    ReadByFreshTo "read from a token's fresh_to",
    NextFixedByFirst "next load's after fixed by its first waiter",
    ForgedTokenJoins "forged token joins a load",
    NoJoining "each reader loads for itself",
    NoSecondLook "no second look into the near cache before a load begins",
    TornPage "torn page (majority scan)",
    ListStripeNotRaised "list stripe not raised",
    TokenOfPageAlone "token of the page without its todos",
    GraceFreshToFrontier "grace: fresh to the frontier",
    GraceOverOwnWrite "grace: over an own write",
    GraceUnderToken "grace: under a token",
    WriterRaisesNothing "writer raises nothing",
    WriterRaisesTodoOnly "writer raises only the todo",
    CursorInsideTime "watch: cursor t inside a time",
    MergedCursor "watch: merged cursor",
    ProgressNotClamped "watch: progress not clamped",
    MergeInPlace "watch: merge in place",
    ProgressOvertakes "watch: progress overtakes a change",
    ResetToConnectedOnly "reset only to those connected",
    HubAfterFrontier "hub after frontier",
    WatchFromSeen "watch from seen",
    ReadWithCursor "read with a watch cursor",
    WatchForgetsSeen "a watch forgets the seen of the token it began with",
    StrongJoinsEarlier "strong read joins a heartbeat begun before it",
    StrongChecksBeforeWait "strong read captures its check before its wait",
    StrongIsMajorityRead "strong read = a majority read",
    FutureTokenAccepted "future token accepted",
    BegunAtAcknowledgement "m taken at the acknowledgement",
    HeartbeatByDocument "heartbeat matched by document instead of number",
    HeartbeatOfDeposed "w:1 heartbeat on a deposed primary",
    GraceWithoutNeed "grace without need",
    StaleUnderToken "stale answer under a token",
    TokenWithoutAge "token consistency without age",
    LoadWithoutHeartbeat "load without a young heartbeat",
    LoadBeginIsAge "a load's begin counted as age",
    MinusTwo "h - 2",
    ResumeClosesTime "resume closes a time",
    RightLookedAtOnce "the right is not looked at again after the load",
    OldRightForNewState "an old right allows a newer state",
    UnreadableListAllows "a list that cannot be read allows",
    RightBeforeRestart "a right from before a restart",
    WriteByCachedRight "a write is checked by a cached right",
    WatchCheckedAtStart "a watch is checked at its start only",
    ListAfterItsTodos "a revocation after the todos of its transaction",
}
