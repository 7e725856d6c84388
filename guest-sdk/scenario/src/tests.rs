//! What files say, what they may not say, and how runs are judged.
