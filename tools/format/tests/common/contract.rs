// SPDX-License-Identifier: GPL-2.0

//! The steps of `Documentation/verify.md` on which something depends.

/// A step of the contract. Each is left out by a twin of some model, which must fail then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A read that copies looks at `plain` again when it has the folio.
    CopyLooksAgain,
    /// It has found the folio uptodate before.
    CopyLooksLast,
    /// There is a barrier between these two.
    UptodateOrders,
    /// A fault looks at `plain` again when it has the folio locked.
    FaultLooksAgain,
    /// A read through `filemap_read()` is counted.
    ReadIsCounted,
    /// It is counted before it looks at the state.
    CountComesFirst,
    /// A foreign fill is refused while reads are counted.
    FillMindsReads,
    /// A foreign fill waits for a grace period.
    FillMindsRcu,
    /// That begins when `plain` is cleared.
    CookieComesLast,
    /// A foreign fill is refused until the walk is over.
    FillMindsWalk,
    /// A fill looks at the state when its folio is in the cache.
    InsertComesFirst,
    /// A fill of the only user looks whether a block has a digest.
    SoleMindsRecords,
    /// A fill compares with the digest, if there is one.
    FillMindsDigest,
    /// A fill verifies its blocks when nothing can fail any more.
    VerifyComesLast,
    /// `AS_RELEASE_ALWAYS` is set before the walk.
    FlagComesFirst,
    /// The walk leaves locked folios out.
    WalkMindsLocks,
    /// What has a digest is taken for pages of the only user before others bring in pages.
    RecordsComeFirst,
    /// Bytes are compared under the folio's lock.
    CompareLocks,
    /// A folio that is locked to be compared is still in the cache.
    CompareLooksForMapping,
    /// Whether there are many users, so that a page that leaves has its digest recorded, is looked at
    /// under the lock.
    ReleaseLocks,
    /// It has that recorded even if nothing is known to have verified it.
    AllAreRecorded,
    /// That is omitted only if no inode is bound, nor has left while it had files.
    LeavingIsNoted,
    /// A foreign fill waits for a grace period after the only user has left, too.
    ParkMindsRcu,
    /// A user that leaves is not the only one any more, for what looks at its binding, before the
    /// shared inode is parked, and others may come.
    GoneComesFirst,
    /// A page that memory failure has taken leaves a digest that no block has.
    PoisonIsRecorded,
    /// What a merge puts back has no digest that it had not when it was dropped.
    MergeMindsRecords,
    /// It was in the cache when that was looked at.
    MergeLooksForFolio,
    /// `plain` is set under the lock under which it was found that it may be.
    PublishLocks,
    /// An RCU section begins with a barrier: this is about the model itself.
    RcuOrders,
}
